"""A promotion that is killed (SIGKILL, a real process) leaves the channel whole."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.release.channels import PromotionRequest, fetch, promote
from engines.release.gate import Margins
from engines.release.records import history
from engines.release.store import DirectoryStore
from tests.support.signing import make_signer
from tests.unit.engines.release.candidates import make_candidate

ROOT = Path(__file__).parents[4]
# Kills itself before the n-th of the calls that make a write last or seen.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.support.engines_cli import main

left, when = int(sys.argv[1]), sys.argv[2]

def deadly(call):
    def wrapped(*arguments):
        global left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

Path.hardlink_to = deadly(Path.hardlink_to)
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("write", "when", "at"),
    [
        (1, "before", "0.1.0"),  # the first file
        (4, "after", "0.1.0"),  # the manifest, not yet signed
        (6, "before", "0.1.0"),  # the record
        (6, "after", "0.2.0"),
    ],
)
def test_a_killed_promotion_leaves_the_old_version_or_the_new(
    tmp_path: Path, write: int, when: str, at: str
) -> None:
    """And the next one succeeds, or finds it done; nothing has to be repaired by hand."""
    signer = make_signer(tmp_path)
    (tmp_path / "store").mkdir()
    store = DirectoryStore(tmp_path / "store")

    asked = PromotionRequest("tests", datetime.now(UTC))
    for version in ("0.1.0", "0.2.0"):
        make_candidate(tmp_path / version, signer, version)
    # The golden file and the model are the first version's too: its six writes are all new ones.
    promote(store, "stable", tmp_path / "0.1.0", asked, signer.trust, Margins())
    for blob in (tmp_path / "store" / "blobs").iterdir():
        blob.rename(blob.with_suffix(".aside"))
    command = [
        *("release", "promote", "stable", str(tmp_path / "0.2.0")),
        *("--store", str(tmp_path / "store"), "--trusted-keys", str(signer.public)),
    ]
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(write), when, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for blob in (tmp_path / "store" / "blobs").glob("*.aside"):
        blob.rename(blob.with_suffix(""))
    fetch(store, "stable", tmp_path / "fetched", signer.trust)
    assert json.loads((tmp_path / "fetched" / "manifest.json").read_text())["version"] == at
    if at == "0.1.0":
        promote(store, "stable", tmp_path / "0.2.0", asked, signer.trust, Margins())
    assert [one.after.version for one in history(store, "stable")] == ["0.1.0", "0.2.0"]
