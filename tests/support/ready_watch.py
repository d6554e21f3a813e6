"""Whether a worker was ready all the time, not only when somebody looked.

In: a running worker. Out: every answer of ``/readyz`` but 200, while the watch lasts.
"""

import threading
from types import TracebackType
from typing import Self

from tests.support.worker_process import PAUSE_S, WorkerProcess


class ReadyWatch:
    """Asks again and again, in a thread of its own."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.asked = 0
        self.unready: list[tuple[int, str]] = []
        self._worker = worker
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._done.wait(PAUSE_S):
            answer = self._worker.probe("readyz")
            self.asked += 1
            if answer[0] != 200:
                self.unready.append(answer)
