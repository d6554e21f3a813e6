"""The console command: which group's parser gets which arguments."""

import subprocess
import sys

import pytest

from deploy import command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["synthgate", *arguments])
    return command.main()


def test_help_lists_the_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"\n  {group} " in text for group in command.GROUPS)
    assert max(map(len, text.splitlines())) <= 80


def test_a_group_gets_everything_after_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "engines", "verify", "--help")
    assert ended.value.code == 0
    assert "usage: synthgate engines verify" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("deploy",), ("--bundle", "worker")])
def test_no_group_or_an_unknown_one_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == command.EXIT_USAGE


@pytest.mark.parametrize(("group", "package"), [("trainer", "torch"), ("worker", "kafka")])
def test_a_group_whose_packages_are_absent_says_how_to_install_them(
    group: str, package: str
) -> None:
    """In a process of its own: modules that are taken away here would be missed by other tests."""
    command = {"trainer": "train", "worker": "dry-run"}[group]
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["synthgate", {group!r}, {command!r}]
from deploy.command import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert package in done.stderr
    assert f"pip install '.[{group}]'" in done.stderr
    assert "Traceback" not in done.stderr
