"""The programs of ``examples/``, run as their README says, against a running worker."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.events import picture
from tests.support.lane import Lane
from tests.support.worker_process import eventually

ROOT = Path(__file__).resolve().parents[2]


def run_example(
    name: str, *arguments: str | Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_upload_that_is_sent_can_be_followed_and_looked_up(lane: Lane, tmp_path: Path) -> None:
    """The producer, the consumer of the results topic and the one of Redis agree on two uploads."""
    environment = {
        "KAFKA": lane.bootstrap,
        "REDIS": lane.redis_url,
        "UPLOAD_TOPIC": lane.input_topic,
        "VERDICT_TOPIC": lane.verdict_topic,
        "KEY_PREFIX": lane.name,
    }
    files = [tmp_path / f"upload-{seed}.png" for seed in range(2)]
    for seed, file in enumerate(files):
        file.write_bytes(picture(seed))
    lane.start()

    sent = run_example("send_upload.py", *files, environment=environment)
    assert sent.returncode == 0, sent.stderr
    assert [line.split(":")[0] for line in sent.stdout.splitlines()] == [f.name for f in files]

    followed = run_example("follow_verdicts.py", "2", environment=environment)
    assert followed.returncode == 0, followed.stderr
    bands = dict(line.split(",")[0].split(": ") for line in followed.stdout.splitlines())
    assert set(bands) == {file.name for file in files}

    # Redis follows the topic: the worker writes it next.
    eventually(lambda: all(lane.stored(name) for name in bands), "both verdicts are in Redis")
    for name, band in bands.items():
        stored = run_example("look_up_verdict.py", name, environment=environment)
        assert stored.returncode == 0, stored.stderr
        assert json.loads(stored.stdout)["data"]["band"] == band

    absent = run_example("look_up_verdict.py", "never-uploaded", environment=environment)
    assert (absent.returncode, absent.stderr.strip()) == (1, "no verdict on never-uploaded")
