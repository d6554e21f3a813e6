"""A worker as its users start it: ``python -m worker run`` in a process of its own.

In: settings by their dotted names (``kafka.group_id``). Out: :class:`WorkerProcess`, with its probes, metrics
and log. It never outlives the test process (see :mod:`deploy.embedded.child`).
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from deploy.embedded.child import Child

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S = 0.03
READY_TIMEOUT_S = 40.0

Settings = Mapping[str, object]


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker: this one's, with exactly these settings."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SYNTHGATE_")}
    # The tests' own bundles carry no signature; those that the tests of signatures sign say otherwise.
    own = "engine.bundle" in settings and "engine.trusted_keys" not in settings
    unsigned = {"engine.allow_unsigned": True} if own else {}
    for name, value in (unsigned | dict(settings)).items():
        kept[f"SYNTHGATE_{name.replace('.', '__').upper()}"] = str(value)
    return kept | {"PYTHONPATH": str(ROOT)}


def run_cli(
    arguments: Sequence[str | Path], settings: Settings, *, timeout_s: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m worker ARGUMENTS`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *map(str, arguments)],
        env=environment(settings),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait until the condition holds; an error that says ``what`` did not."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(PAUSE_S)


class WorkerProcess:
    """One running worker."""

    def __init__(self, settings: Settings, log_path: Path) -> None:
        self._child = Child(
            [sys.executable, "-m", "worker", "run"],
            log_path=log_path,
            env=environment(settings),
        )
        self._log_path = log_path
        self._port: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def port(self) -> int:
        """The port of its probes, known once it has started."""
        if self._port is None:
            eventually(lambda: bool(self.log("worker_starting")) or self.ended, "started")
            started = self.log("worker_starting")
            assert started, f"the worker ended at once:\n{self._child.log_tail()}"
            self._port = int(started[0]["health_port"])
        return self._port

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        return self._child.poll() is not None

    def log(self, event: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """Its log lines, or those of one event with these fields."""
        if not self._log_path.exists():
            return []
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"]
        return [
            line
            for line in parsed
            if event in (None, line.get("event")) and fields.items() <= line.items()
        ]

    def log_text(self) -> str:
        """Its whole log, as written."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body of one look at its HTTP port; status 0 if it does not answer."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def is_ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        return self.probe("readyz")[0] == 200

    @property
    def is_live(self) -> bool:
        """Whether ``/livez`` says so."""
        return self.probe("livez")[0] == 200

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it is ready; an error with its log where it ends instead."""
        eventually(lambda: self.ended or self.is_ready, "ready", timeout_s)
        assert not self.ended, f"the worker ended:\n{self._child.log_tail()}"

    def wait_owning(self, partitions: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it owns that many partitions."""
        eventually(
            lambda: self.metric("synthgate_assigned_partitions") == partitions,
            f"owns {partitions} partitions",
            timeout_s,
        )

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """From sample name and label values (in the order of their names) to the value."""
        status, text = self.probe("metrics")
        assert status == 200
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, *labels: str) -> float:
        """One sample, 0 where there is none; without labels the sum over all of them."""
        values = self.metrics()
        if labels:
            return values.get((name, labels), 0.0)
        return sum(value for (sample, _), value in values.items() if sample == name)

    def outcomes(self) -> dict[str, int]:
        """What became of its events, by the metric that counts them."""
        return {
            labels[0]: int(value)
            for (name, labels), value in self.metrics().items()
            if name == "synthgate_events_total"
        }

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit status, once it ends by itself."""
        status = self._child.wait(timeout_s)
        assert status is not None, f"still running after {timeout_s:g} s:\n{self._child.log_tail()}"
        return status

    def drain(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; its exit status."""
        self._child.terminate()
        return self.wait(timeout_s)

    def kill(self) -> None:
        """End it as a crash would."""
        self._child.kill()
