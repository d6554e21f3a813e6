"""The console command: which group's parser gets which arguments."""

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


def test_a_group_whose_packages_are_absent_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "trainer.cli", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("trainer.")]:
        monkeypatch.delitem(sys.modules, name)
    assert run(monkeypatch, "trainer", "train") == command.EXIT_USAGE
    text = capsys.readouterr().err
    assert "torch" in text
    assert "pip install '.[trainer]'" in text
