"""The demo as a user runs it: real servers, real workers, and nothing left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bundles import make_tiny_bundle
from tests.support.services import BrokerKind

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "deploy" / "embedded" / "samples"
MARK = "DEMO_TEST_MARK"
TIMEOUT_S = 120.0
SERVERS = ("--storage-engine=memory", "valkey-server")  # in their commands
KEYS = {
    *("published", "verdicts", "dead_letters", "lost", "duplicates", "events_per_s"),
    *("bare_engine_events_per_s", "latency_ms", "workers", "accuracy", "bundle"),
}


@dataclass
class Demo:
    """A running demo, and a way to find every process that descends from it."""

    process: subprocess.Popen[str]
    mark: str
    output: Path
    unmarked: set[int] = field(default_factory=set)

    def descendants(self, word: str = "") -> list[int]:
        """Living processes that inherited our mark in their environment, or whose parent did.

        The cache writes its title over its environment, so its parent alone tells whose it is. Such
        ones are remembered: once the parent has ended, nothing tells any more.
        """
        rows = [row.split(maxsplit=3) for row in _processes().splitlines()]
        marked = {int(pid) for pid, _, _, text in rows if self.mark in text}
        self.unmarked |= {int(pid) for pid, parent, _, _ in rows if int(parent) in marked} - marked
        living = {int(pid): text for pid, _, stat, text in rows if stat[0] != "Z"}
        return [pid for pid in living.keys() & (marked | self.unmarked) if word in living[pid]]

    def read_until(self, text: str) -> str:
        """What it says up to the first line with that text."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if text in line:
                return said
        raise AssertionError(f"{text!r} was never said:\n{said}")

    def finish(self) -> str:
        """The rest of what it says; it has ended when this returns."""
        said, _ = self.process.communicate(timeout=TIMEOUT_S)
        return said

    def report(self) -> dict[str, object]:
        """``report.json``."""
        found: dict[str, object] = json.loads((self.output / "report.json").read_text())
        return found


def _processes() -> str:
    """Every process: its id, its parent's, its state, its command with its environment."""
    columns = ["-o", "pid=,ppid=,stat=,command="]
    return subprocess.run(
        ["ps", "axeww", *columns], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small but real bundle that takes the samples' size."""
    return make_tiny_bundle(tmp_path / "bundle", crop_px=224, batch_max=16)


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos; whatever a failed test leaves is ended."""
    running: list[Demo] = []

    def start(*arguments: str, bundle: Path = bundle) -> Demo:
        mark, output = uuid.uuid4().hex, tmp_path / "demo"
        options = ["--bundle", str(bundle), "--output", str(output), *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.embedded.demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, MARK: mark, "PYTHONUNBUFFERED": "1"},
        )
        running.append(Demo(process, mark, output))
        return running[-1]

    yield start
    for demo in running:
        for pid in demo.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        demo.process.wait()
        if demo.process.stdout is not None:
            demo.process.stdout.close()


def none_left(demo: Demo, timeout_s: float = 10.0) -> bool:
    """Whether all its processes are gone in time (a killed one takes a moment to go)."""
    deadline_s = time.monotonic() + timeout_s
    while demo.descendants() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return not demo.descendants()


def test_demo_accounts_for_every_event(broker_kind: BrokerKind, start: Callable[..., Demo]) -> None:
    """Every event has one outcome, on the topics and in Redis; both workers drain; exit 0."""
    name = "kafka" if broker_kind is BrokerKind.KAFKA else "tansu"
    demo = start("--events", "60", "--broker", name)
    said = demo.finish()
    assert demo.process.returncode == 0, said
    assert none_left(demo)
    report = demo.report()
    assert report.keys() >= KEYS
    assert report["published"] == 60
    assert report["verdicts"] == 53
    assert report["dead_letters"] == 7
    assert report["lost"] == report["duplicates"] == 0
    assert report["duplicate_events_sent"] == report["duplicate_events_recognised"] == 2
    assert report["redis_verdicts"] == 53
    assert report["worker_exit_statuses"] == {"worker-1": 0, "worker-2": 0}
    assert isinstance(report["events_per_s"], float)
    assert report["events_per_s"] > 0
    assert "Everything adds up" in said


def test_demo_takes_a_folder_of_ones_own(start: Callable[..., Demo], tmp_path: Path) -> None:
    """Its images get verdicts and its broken file a dead letter; labels come from the folders."""
    folder = tmp_path / "mine"
    (folder / "real").mkdir(parents=True)
    for number in range(5):
        Image.effect_noise((300, 280), 10 + number).save(folder / "real" / f"bild {number} ü.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    demo = start("--images", str(folder), "--workers", "1")
    said = demo.finish()
    assert demo.process.returncode == 0, said
    report = demo.report()
    assert report["published"] == 6 + 7
    assert report["verdicts"] == 5
    assert report["dead_letters"] == 8
    assert isinstance(report["accuracy"], dict)
    assert report["accuracy"]["n"] == 5


@pytest.mark.parametrize(
    ("ending", "moment", "workers"),
    [
        (signal.SIGTERM, "Timing the bare engine", 1),
        (signal.SIGINT, "Publishing", 2),
        (signal.SIGTERM, "Publishing", 1),
        (signal.SIGKILL, "Publishing", 1),
    ],
)
def test_demo_leaves_no_process_when_it_is_ended(
    ending: signal.Signals, moment: str, workers: int, start: Callable[..., Demo]
) -> None:
    """Ctrl-C, a SIGTERM and even a SIGKILL take broker, cache and workers along."""
    demo = start("--events", "100", "--workers", str(workers))
    demo.read_until(moment)
    for server in SERVERS:
        assert len(demo.descendants(server)) == 1, server
    demo.process.send_signal(ending)
    demo.finish()
    assert demo.process.returncode == (-9 if ending == signal.SIGKILL else 128 + ending)
    assert none_left(demo)


def test_demo_fails_when_a_worker_dies(start: Callable[..., Demo]) -> None:
    """A worker that is killed is named with its log, and the demo does not exit 0."""
    demo = start("--events", "100", "--workers", "1")
    demo.read_until("Publishing")
    os.kill(demo.descendants("worker run")[0], signal.SIGKILL)
    said = demo.finish()
    assert demo.process.returncode == 1
    assert "ended with status -9" in said
    assert none_left(demo)


def test_demo_refuses_an_altered_bundle(start: Callable[..., Demo], bundle: Path) -> None:
    """The bundle is verified before anything is started."""
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-1] + b"x")
    demo = start(bundle=bundle)
    said = demo.finish()
    assert demo.process.returncode == 1
    assert "model.onnx" in said
    assert none_left(demo)


def test_samples_are_labelled_and_their_terms_named() -> None:
    """Every sample is in labels.json, under its class, with the terms that allow its use."""
    labels = json.loads((SAMPLES / "labels.json").read_text())
    files = {f"{path.parent.name}/{path.name}" for path in SAMPLES.glob("*/*") if path.is_file()}
    assert {name for name in files if name.split("/")[0] in ("real", "fake")} == labels.keys()
    for name, entry in labels.items():
        assert entry["label"] == name.split("/")[0]
        assert entry["terms"] in ("CC0", "public domain", "CC-BY 2.0", "CC-BY 4.0")
