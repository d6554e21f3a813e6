"""``release`` on the command line: what it prints, and its exit status."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.release.cli import list_lines
from engines.release.records import Change, Version
from tests.support.engines_cli import main
from tests.support.signing import make_signer
from tests.unit.engines.release.candidates import make_candidate


def test_the_way_of_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promote, refuse, force, list, roll back, fetch; each change by a named person."""
    signer = make_signer(tmp_path)
    (tmp_path / "store").mkdir()
    trust = ["--trusted-keys", str(signer.public)]
    one = make_candidate(tmp_path / "one", signer, "0.1.0", auc=0.9)
    two = make_candidate(tmp_path / "two", signer, "0.2.0", auc=0.8)

    def release(command: str, *arguments: str) -> int:
        return main(["release", command, "--store", str(tmp_path / "store"), *arguments])

    assert release("promote", "stable", str(one), *trust, "--who", "ada", "--json") == 0
    assert json.loads(capsys.readouterr().out)["who"] == "ada"
    assert release("promote", "stable", str(two), *trust) == 1
    assert "Promote a better one, or this one with --force" in capsys.readouterr().err
    assert release("promote", "stable", str(two), *trust, "--auc-drop-max", "0.2") == 0
    assert release("rollback", "stable", *trust, "--reason", "too many appeals") == 0
    assert release("fetch", "stable", "--to", str(tmp_path / "got"), *trust, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["after"]["version"] == "0.1.0"
    assert release("list", "--json") == 0
    changes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert changes[0]["measured"]["latency"]["why"] == "the channel was empty"
    assert changes[1]["measured"]["latency"]["candidate"]["version"] == "0.2.0"
    assert changes[2]["measured"] is None
    assert [line["action"] for line in changes] == ["promote", "promote", "rollback"]
    assert changes[-1]["reason"] == "too many appeals"
    assert release("list", "stable") == 0
    listed = capsys.readouterr().out
    assert "rollback" in listed
    measured = "latency not compared: the channel was empty; golden outputs agree on "
    assert f"{measured}onnxruntime-cpu fp32 (model.onnx)" in listed.splitlines()[0]


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No keys, no such channel, no store; as JSON too."""
    bundle = make_candidate(tmp_path / "one", None)
    command = ["release", "promote", "--store", str(tmp_path), "--json"]
    for arguments, told in (
        (["stable", str(bundle)], "no trusted key is named"),
        (["beta", str(bundle)], "no channel is called 'beta'"),
        (["stable", str(tmp_path / "none"), "--allow-unsigned"], "name the directory of a bundle"),
    ):
        assert main([*command, *arguments]) == 1
        assert told in json.loads(capsys.readouterr().out)["error"]
    assert main(["release", "list", "--store", str(tmp_path / "none")]) == 1
    assert "is not there" in capsys.readouterr().err


def test_unsigned_is_shouted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_candidate(tmp_path / "one", None)
    (tmp_path / "store").mkdir()
    command = ["release", "promote", "canary", str(bundle), "--store", str(tmp_path / "store")]
    assert main([*command, "--allow-unsigned"]) == 0
    captured = capsys.readouterr()
    assert "UNSIGNED BUNDLES ALLOWED" in captured.err
    assert "UNSIGNED" in captured.out


def test_what_the_gate_is_told_is_in_the_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Latency is skipped by name, and timed in batches of so many images; less than 1 is no margin."""
    (tmp_path / "store").mkdir()
    command = ["release", "promote", "--store", str(tmp_path / "store"), "--allow-unsigned"]

    def promoted(version: str, *options: str) -> dict[str, object]:
        bundle = make_candidate(tmp_path / version, None, version)
        assert main([*command, "--json", "canary", str(bundle), *options]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)["measured"]["latency"]
        return found

    promoted("0.1.0")
    assert promoted("0.2.0", "--latency-images", "3")["images"] == 3
    assert promoted("0.3.0", "--skip-latency")["why"] == "skipped on request"
    for wrong in ("0.5", "nan", "fast"):
        with pytest.raises(SystemExit) as leaving:
            main([*command, "canary", str(tmp_path / "0.3.0"), "--latency-ratio-max", wrong])
        assert leaving.value.code == 2
        assert "not a number of at least 1" in capsys.readouterr().err


CHANGE = Change(
    id="0" * 32,
    serial=12,
    channel="stable",
    action="promote",
    at=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    who="somebody-with-a-long-name@a-machine-with-a-long-name.example.org",
    before=Version(name="a-detector", version="0.9.0", manifest_sha256="1" * 64),
    after=Version(name="a-detector", version="0.10.0+int8", manifest_sha256="0" * 64),
    reason="many words " * 20,
    forced=True,
    findings=("worse " * 20,),
    signed_by="0123456789abcdef",
)


@pytest.mark.parametrize(("width", "lines"), [(80, 2), (140, 1)])
def test_a_listed_change_takes_two_lines_of_80_columns_and_one_of_140(
    width: int, lines: int
) -> None:
    listed = list(list_lines([CHANGE], width))
    assert len(listed) == lines
    assert max(map(len, listed)) <= width
    assert "a-detector 0.10.0+int8 (000000000000)" in listed[0]
    assert "from 0.9.0; signed by 0123456789abcdef; somebody" in listed[-1]


def test_a_pipe_gets_every_word_of_a_change_in_one_line() -> None:
    (line,) = list_lines([CHANGE], None)
    assert line.endswith("worse " * 20)
    assert CHANGE.reason in line
