"""The exit status of a worker."""

import pytest

from worker import app
from worker.errors import DeviceGone, Fatal
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
