"""How a worker's end is told to whoever started it."""

import pytest

from worker import app
from worker.errors import DeviceGone, Fatal
from worker.health import Readiness
from worker.settings import Settings


@pytest.mark.parametrize(("error", "status"), [(Fatal("refused"), 1), (DeviceGone("lost"), 4)])
def test_a_lost_device_has_an_exit_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, error: Fatal, status: int
) -> None:
    """A restart may mend it, which an orchestrator can tell by the status alone."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(app, "_serve", fail)
    assert app.run_worker(Settings()) == status


def test_a_worker_whose_engine_failed_is_not_ready() -> None:
    """It says why until it has ended."""
    readiness, failure = Readiness(), DeviceGone("the device is lost")
    assert app._told(None, readiness) is None
    assert readiness.problems() == {}
    assert app._told(failure, readiness) is failure
    assert readiness.problems() == {"engine": "the device is lost"}
