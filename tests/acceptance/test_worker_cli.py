"""``python -m worker`` as people and scripts use it: output, messages and exit status of every command."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.services import free_port
from engines.bundle.manifest import read_manifest
from tests.support.events import picture, structured
from tests.support.lane import Lane
from tests.support.signing import make_signer
from tests.support.worker_process import eventually, run_cli


def lines_of(text: str) -> list[dict[str, Any]]:
    """Each line as JSON."""
    return [json.loads(line) for line in text.splitlines()]


def test_score_prints_one_line_an_image(bundle: Path, tmp_path: Path) -> None:
    """Files and directories, in their order; status 0 because every image has its score."""
    directory = tmp_path / "pictures" / "deeper"
    directory.mkdir(parents=True)
    for at in range(3):
        (directory / f"{at}.png").write_bytes(picture(at))
    single = tmp_path / "single.jpg"
    single.write_bytes(picture(3, file_format="JPEG"))
    signer = make_signer(tmp_path)
    signed = signer.sign(shutil.copytree(bundle, tmp_path / "signed"))
    settings = {"engine.bundle": signed, "engine.trusted_keys": signer.public}
    done = run_cli(["score", single, tmp_path / "pictures"], settings)
    assert done.returncode == 0
    (told,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (told["event"], told["level"]) == ("runtime_chosen", "info")
    lines = lines_of(done.stdout)
    assert [line["path"] for line in lines] == [
        str(single),
        *(str(directory / f"{at}.png") for at in range(3)),
    ]
    for line in lines:
        assert set(line) == {"path", "score", "logit", "band"}
        assert line["score"] == pytest.approx(read_manifest(bundle).score(line["logit"]))


def test_score_names_what_is_broken_and_scores_the_rest(bundle: Path, tmp_path: Path) -> None:
    """Every path has its line, whatever its name; status 1 because some have no score."""
    names = {
        b"a.png": (picture(1), None),
        b"b.png": (b"this is a text, not an image", "unsupported_format"),
        b"c.png": (picture(2)[:100], "truncated"),
        b"d.png": (b"", "empty"),
        b"e\xff.png": (picture(3), None),
        b"f\nnew.png": (picture(4), None),
    }
    for name, (data, _) in names.items():
        (tmp_path / os.fsdecode(name)).write_bytes(data)
    missing = tmp_path.parent / "missing.png"
    done = run_cli(["score", tmp_path, missing], {"engine.bundle": bundle})
    assert done.returncode == 1, done.stderr
    lines = lines_of(done.stdout)
    assert [line.get("code") for line in lines] == [code for _, code in names.values()] + [
        "unreadable"
    ]
    assert all(("score" in line) != ("error" in line) for line in lines)


def test_score_of_nothing_is_no_success(bundle: Path, tmp_path: Path) -> None:
    """A directory without files was surely not meant; neither does no path at all pass."""
    done = run_cli(["score", tmp_path], {"engine.bundle": bundle})
    assert done.returncode == 1
    (line,) = lines_of(done.stdout)
    assert line["path"] == str(tmp_path)
    assert line["code"] == "empty_directory"
    assert run_cli(["score"], {"engine.bundle": bundle}).returncode == 2


@pytest.mark.parametrize("command", [["score", "x.png"], ["run"], ["dry-run", "--offline"]])
def test_a_bundle_of_another_key_is_refused(
    command: list[str], bundle: Path, tmp_path: Path
) -> None:
    """No command works with it: status 1, and the message names the key that signed it."""
    signer, other = make_signer(tmp_path), make_signer(tmp_path, "other")
    signed = signer.sign(shutil.copytree(bundle, tmp_path / "signed"))
    settings = {
        "engine.bundle": signed,
        "engine.trusted_keys": other.public,
        "health.port": 0,
    }
    done = run_cli(command, settings)
    assert done.returncode == 1
    assert f"is signed by {signer.key_id}, which is not trusted" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_shows_what_is_in_force_and_no_secret(tmp_path: Path) -> None:
    """Environment, secret files and a TOML file come together; passwords are masked."""
    config = tmp_path / "worker.toml"
    config.write_text('[kafka]\ngroup_id = "from-file"\nclient_id = "from-file"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "kafka__sasl_password").write_text("SECRETFROMFILE")
    settings = {
        "kafka.group_id": "from-environment",
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_mechanism": "PLAIN",
        "kafka.sasl_username": "user",
        "redis.password": "SECRETFROMENVIRONMENT",
        "secrets_dir": secrets,
    }
    done = run_cli(["check-config", "--config", config], settings)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["kafka"]["group_id"] == "from-environment"
    assert shown["kafka"]["client_id"] == "from-file"
    assert shown["kafka"]["sasl_password"] == shown["redis"]["password"] == "**********"
    assert "SECRETFROM" not in done.stdout + done.stderr


def test_a_wrong_setting_is_named() -> None:
    """Status 2, without a traceback."""
    done = run_cli(["check-config"], {"redis.url": "redis://:SECRET@localhost:1"})
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert "SECRET" not in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_passes_where_a_worker_would_work(lane: Lane, tmp_path: Path) -> None:
    """Bundle, cache and broker are looked at, an event is decided; nothing is published."""
    event = tmp_path / "event.json"
    event.write_bytes(structured("dry", image=picture(1)).value or b"")
    done = run_cli(["dry-run", event], lane.settings())
    assert done.returncode == 0, done.stdout + done.stderr
    lines = lines_of(done.stdout)
    assert [line["check"] for line in lines] == ["bundle", "redis", "kafka", f"event {event}"]
    assert all(line["ok"] for line in lines)
    assert lines[3]["detail"]["band"] in ("allow", "review")
    with lane.verdicts() as verdicts:
        assert verdicts.to_end() == []
    assert lane.stored("dry") is None


def test_dry_run_says_everything_that_is_wrong(lane: Lane, tmp_path: Path) -> None:
    """A missing topic, a cache that is away, broken events: each has its line; status 1."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    no_image = tmp_path / "none.json"
    no_image.write_bytes(structured("none").value or b"")
    settings = lane.settings(
        kafka__verdict_topic="no.such.topic", redis__url=f"redis://127.0.0.1:{free_port()}/0"
    )
    done = run_cli(["dry-run", broken, no_image, tmp_path / "missing.json"], settings)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = lines_of(done.stdout)
    assert [line["ok"] for line in lines] == [True, False, False, False, False, False]
    assert "Redis" in lines[1]["error"]
    assert "no.such.topic" in lines[2]["error"]
    assert "JSON" in lines[3]["error"]


def test_a_broker_that_is_absent_is_a_clear_error(lane: Lane) -> None:
    """``run`` ends with status 1 and names address and settings; ``dry-run`` says so in its line."""
    nowhere = f"127.0.0.1:{free_port()}"
    worker = lane.launch(kafka__bootstrap_servers=nowhere)
    done = run_cli(["dry-run"], lane.settings(kafka__bootstrap_servers=nowhere))
    assert done.returncode == 1
    (line,) = [each for each in lines_of(done.stdout) if each["check"] == "kafka"]
    assert line["ok"] is False
    assert line["error"]
    assert worker.wait(60) == 1
    (failed,) = worker.log("worker_failed")
    assert nowhere in failed["error"]
    assert "kafka.bootstrap_servers" in failed["error"]


def test_run_is_not_ready_before_its_bundle_is_verified_and_the_group_joined(lane: Lane) -> None:
    """The probes answer from the first moment on; ready comes last, and says what it waits for."""
    worker = lane.launch()
    bodies = []

    def ready() -> bool:
        status, body = worker.probe("readyz")
        if status == 503:
            bodies.append(body)
        return status == 200

    eventually(ready, "ready")
    assert '"group": "not yet"' in bodies[0]
    names = [line["event"] for line in worker.log()]
    assert names.index("bundle_verified") < names.index("partitions_assigned")
    assert worker.probe("nothing")[0] == 404


@pytest.mark.parametrize("setting", ["input_topic", "verdict_topic", "dead_letter_topic"])
def test_run_without_one_of_its_topics_is_a_clear_error(lane: Lane, setting: str) -> None:
    """A misspelt topic is named at the start, with status 1, and never silently waited for."""
    worker = lane.launch(**{f"kafka__{setting}": f"no.such.{setting}"})
    assert worker.wait() == 1
    assert f"no.such.{setting}" in worker.log("worker_failed")[0]["error"]
