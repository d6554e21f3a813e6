"""The command line: what each command prints, and the exit status that scripts rely on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.bundle.golden import read_golden, write_golden
from engines.bundle.keys import generate_key, read_private_key
from engines.bundle.manifest import read_manifest, read_manifest_bytes, write_manifest
from engines.bundle.signatures import Signatures, sign_manifest, write_signatures
from tests.support.bundles import make_tiny_bundle
from tests.support.signing import make_signer
from tests.support.worker_process import environment
from tests.unit.worker.samples import jpeg_bytes
from worker import __version__, cli


def main(arguments: list[str]) -> int:
    """Run one command in this process's environment."""
    return cli.main(arguments, os.environ)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, own_logging: None) -> None:
    """No settings of the caller's, and no logging left behind."""
    for name in os.environ:
        if name.startswith("SYNTHGATE_"):
            monkeypatch.delenv(name)
    # The tiny bundle is not signed; what happens to that by default is tested below.
    monkeypatch.setenv("SYNTHGATE_ENGINE__ALLOW_UNSIGNED", "true")
    monkeypatch.setenv("SYNTHGATE_HEALTH__PORT", "0")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["score"], "the following arguments are required: PATH"),
        (["replay", "--limit", "0"], "must be a positive integer (omit for no limit)"),
        (["replay", "--limit", "few"], "must be a positive integer"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason, and how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["", "run", "score", "dry-run", "replay", "compare", "check-config"]
)
def test_help_fits_a_terminal_of_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name that the program was called by."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cli.main([*filter(None, [command]), "--help"], {}, "synthgate worker")
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert shown.startswith(f"usage: synthgate worker {command}".rstrip())
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """For people who report a bug."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out.strip()) == (0, __version__)


def test_check_config_prints_what_is_in_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As JSON, with the file's and the environment's settings in it; secrets masked."""
    config = tmp_path / "worker.toml"
    config.write_text('[batch]\nmax_images = 5\n[redis]\npassword = "hidden"\n')
    monkeypatch.setenv("SYNTHGATE_BATCH__MAX_AGE_MS", "7")
    bundle = tmp_path / "bundle"
    assert main(["check-config", "--config", str(config), "--bundle", str(bundle)]) == 0
    written = capsys.readouterr()
    shown = json.loads(written.out)
    assert shown["batch"] == {"max_images": 5, "max_age_ms": 7}
    assert shown["engine"]["bundle"] == str(bundle)
    assert shown["redis"]["password"] == "**********"
    assert "hidden" not in written.out + written.err


def test_score_is_status_0_only_if_all_were_scored(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad image among good ones is enough for status 1."""
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes())
    assert main(["score", "--bundle", str(bundle), str(tmp_path)]) == 0
    (tmp_path / "2.png").write_bytes(b"text")
    assert main(["score", "--bundle", str(bundle), str(tmp_path)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["score" in line for line in lines] == [True, True, False]


COMMANDS = [["score", "image.jpg"], ["run"], ["dry-run", "--offline"]]


def missing(_bundle: Path, directory: Path) -> Path:
    """A directory that does not exist."""
    return directory


def altered(bundle: Path, directory: Path) -> Path:
    """The bundle with one byte of its model changed."""
    copy = shutil.copytree(bundle, directory)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    return copy


def off_golden(bundle: Path, directory: Path) -> Path:
    """The bundle with one golden logit changed, and a manifest that fits."""
    copy = shutil.copytree(bundle, directory)
    golden = read_golden((copy / "golden.npz").read_bytes())
    golden.logit_K[1] += 0.01
    write_golden(copy / "golden.npz", golden)
    write_manifest(copy, read_manifest(copy))
    return copy


def signed_by_another(bundle: Path, directory: Path) -> Path:
    """The bundle with the signature of a key that is not trusted."""
    return make_signer(directory.parent, "other").sign(shutil.copytree(bundle, directory))


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (missing, ["none/manifest.json"]),
        (altered, ["model.onnx was altered", "again"]),
        (off_golden, ["image_NHWC[1]", "again"]),
        (signed_by_another, ["which is not trusted"]),
    ],
)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_command_works_with_a_bundle_that_must_not_be_used(
    command: list[str],
    spoil: Callable[[Path, Path], Path],
    messages: list[str],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 1; the message names the fault and what to do."""
    if spoil is signed_by_another:
        monkeypatch.delenv("SYNTHGATE_ENGINE__ALLOW_UNSIGNED")
    spoilt = spoil(bundle, tmp_path / "none")
    assert main([*command, "--bundle", str(spoilt)]) == 1
    written = capsys.readouterr()
    assert all(message in written.out + written.err for message in messages)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KAFKA__HEARTBEAT_INTERVAL_MS", "20000", "at most a third"),
        ("KAFAK__GROUP_ID", "x", "did you mean SYNTHGATE_KAFKA"),
        ("KAFKA__GRUP_ID", "x", "unknown setting"),
        ("REDIS__URL", "redis://:SECRET@localhost:1", "holds a password"),
        ("BATCH__MAX_IMAGES", "many", "SYNTHGATE_BATCH__MAX_IMAGES"),
    ],
)
def test_a_wrong_setting_is_status_2(
    name: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the setting and what to do; it does not repeat a secret."""
    assert cli.main(["check-config"], {f"SYNTHGATE_{name}": value}) == 2
    written = capsys.readouterr()
    assert written.err.startswith("error: ")
    assert message in written.err
    assert "SECRET" not in written.out + written.err


def test_an_unknown_threshold_set_is_status_1(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found at the start, not at the first event; the message names those there are."""
    monkeypatch.setenv("SYNTHGATE_DECIDE__THRESHOLD_SET", "strict")
    assert main(["score", "--bundle", str(bundle), "image.jpg"]) == 1
    assert "choose one of default" in capsys.readouterr().err


def test_a_dry_run_finds_an_unknown_threshold_set_without_an_event(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``run`` would; a known set is reported by its id."""
    assert main(["dry-run", "--offline", "--bundle", str(bundle)]) == 0
    assert json.loads(capsys.readouterr().out)["detail"]["threshold_set"] == "default"
    monkeypatch.setenv("SYNTHGATE_DECIDE__THRESHOLD_SET", "strict")
    assert main(["dry-run", "--offline", "--bundle", str(bundle)]) == 1
    assert "choose one of default" in json.loads(capsys.readouterr().out)["error"]


def test_a_threshold_set_that_is_named_decides_the_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its id or by what follows name and version in it; the score stays what it is."""
    bundle, path = make_tiny_bundle(tmp_path / "bundle"), tmp_path / "image.jpg"
    path.write_bytes(jpeg_bytes())
    manifest = read_manifest(bundle)
    (default,) = manifest.threshold_sets
    none, every = (
        default.review.model_copy(update={"threshold": at, "fpr": at}) for at in (1.0, 0.0)
    )
    sets = (
        default.model_copy(update={"id": "tiny-0.1.0-none", "review": none, "block": none}),
        default.model_copy(update={"id": "tiny-0.1.0-every", "review": every}),
    )
    write_manifest(bundle, manifest.model_copy(update={"threshold_sets": (default, *sets)}))
    bands = {}
    for name in ("none", "tiny-0.1.0-none", "every", "tiny-0.1.0-every"):
        monkeypatch.setenv("SYNTHGATE_DECIDE__THRESHOLD_SET", name)
        assert main(["score", "--bundle", str(bundle), str(path)]) == 0
        bands[name] = json.loads(capsys.readouterr().out)["band"]
    assert set(bands.values()) == {"allow", "review"}
    assert bands["none"] == bands["tiny-0.1.0-none"] == "allow"
    assert bands["every"] == bands["tiny-0.1.0-every"] == "review"


@pytest.mark.parametrize("command", ["run", "score"])
def test_a_gpu_that_is_asked_for_and_not_usable_is_status_1(
    command: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bundle has no plan for any GPU; that its CPU runtime could is no reason to start."""
    monkeypatch.setenv("SYNTHGATE_ENGINE__DEVICE", "gpu")
    paths = ["image.jpg"] if command == "score" else []
    assert main([command, "--bundle", str(bundle), *paths]) == 1
    assert "no runtime of the bundle can run here on a GPU" in capsys.readouterr().err


def test_a_dry_run_without_services_checks_bundle_and_events(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a check; one that fails is enough for status 1."""
    event = tmp_path / "event.json"
    event.write_text("{}")
    assert main(["dry-run", "--offline", "--bundle", str(bundle)]) == 0
    assert main(["dry-run", "--offline", "--bundle", str(bundle), str(event)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["check"], line["ok"]) for line in lines] == [
        ("bundle", True),
        ("bundle", True),
        (f"event {event}", False),
    ]
    assert "neither a CloudEvent" in lines[-1]["error"]


def test_an_unsigned_bundle_is_refused_by_default(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --allow-unsigned it is loaded, and the log warns."""
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes())
    monkeypatch.delenv("SYNTHGATE_ENGINE__ALLOW_UNSIGNED")
    command = ["score", "--bundle", str(bundle), str(tmp_path)]
    assert main(command) == 1
    assert f"{bundle} is not signed" in capsys.readouterr().err
    assert main([*command, "--allow-unsigned"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert warning["event"] == "UNSIGNED_BUNDLES_ALLOWED"
    assert warning["signed_by"] is None


def test_a_worker_loads_what_its_own_keys_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And refuses the shipped bundle then: the keys named replace the shipped one."""
    signed = make_tiny_bundle(tmp_path / "bundle")
    key = generate_key(tmp_path / "release.pem")
    added = sign_manifest(
        read_manifest_bytes(signed), read_private_key(tmp_path / "release.pem"), datetime.now(UTC)
    )
    write_signatures(signed, Signatures(signatures=(added,)))
    monkeypatch.delenv("SYNTHGATE_ENGINE__ALLOW_UNSIGNED")
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes())
    assert main(["score", "--bundle", str(signed), str(tmp_path / "1.jpg")]) == 1
    assert f"is signed by {key[0]}, which is not trusted" in capsys.readouterr().err
    monkeypatch.setenv("SYNTHGATE_ENGINE__TRUSTED_KEYS", str(key[1]))
    assert main(["score", "--bundle", str(signed), str(tmp_path / "1.jpg")]) == 0
    assert main(["score", str(tmp_path / "1.jpg")]) == 1
    assert "which is not trusted" in capsys.readouterr().err


def test_the_process_ends_with_that_status(bundle: Path, tmp_path: Path) -> None:
    """The results alone are on standard output, the log as JSON on standard error."""
    shown = subprocess.run(
        [sys.executable, "-m", "worker", "score", "--bundle", str(bundle), str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment({"engine.bundle": bundle}),
    )
    assert shown.returncode == 1
    assert [json.loads(line)["code"] for line in shown.stdout.splitlines()] == ["unreadable"]
    assert all(json.loads(line) for line in shown.stderr.splitlines())
