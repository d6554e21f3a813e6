"""The pipeline: all stages from top to bottom, and a thread for each.

    consume ──> intake: event, fetch, decode ──> infer: batch, run, decide ──> publish ──> commit
    polling     fetch and decode threads         infer thread                  publish     polling
    thread                                                                     thread      thread

Queues between the threads are unbounded: the polling thread pauses its partitions while too much is in flight,
which bounds all of them at once. Every event ends in publish, with a verdict or as a dead letter.
"""

import threading
from collections.abc import Callable, Mapping

import structlog

from worker.errors import Fatal
from worker.infer import InferStage
from worker.intake import IntakeStage
from worker.publish import Abandoned, PublishStage
from worker.services import Services
from worker.shadow import Shadow
from worker.types import AckToken, Links, Payload, Sink, Stage

StageFactory = Callable[[Services, Links], Stage]
# From top to bottom; the name is that of the stage's thread. A new stage is one line here (CONTRIBUTING.md).
STAGES: Mapping[str, StageFactory] = {
    "intake": IntakeStage,
    "infer": InferStage,
    "publish": PublishStage,
}
# After a drain the threads are idle; after a failure the process does not wait longer for them.
JOIN_TIMEOUT_S = 5.0


class Pipeline:
    """Runs records through the stages, from ``submit`` to the acknowledged token.

    Args:
        services: The shared parts of the worker.
        acknowledge: Called with the token of every published record.
        stages: A factory for each stage by its thread's name, from top to bottom.

    Attributes:
        submit: Takes what was consumed; returns at once.
        failure: The error that must end this process, once a stage has failed.
    """

    def __init__(
        self,
        services: Services,
        acknowledge: Callable[[AckToken], bool],
        stages: Mapping[str, StageFactory] = STAGES,
    ) -> None:
        self.failure: Fatal | None = None
        self._readiness = services.health.readiness
        self._shadow = Shadow(services) if services.settings.engine.shadow else None
        shadow = None if self._shadow is None else self._shadow.submit
        self._stages: list[Stage] = []
        following: Sink = _refuse
        # Bottom up, because each stage is made with the one that follows it.
        for make in reversed(list(stages.values())):
            stage = make(services, Links(following, self._requeue, acknowledge, shadow))
            self._stages.insert(0, stage)
            following = stage.submit
        self.submit: Sink = following
        self._threads = [
            threading.Thread(target=self._guarded, args=(stage.run,), name=name, daemon=True)
            for name, stage in zip(stages, self._stages, strict=True)
        ]

    def start(self) -> None:
        """Start the threads."""
        if self._shadow is not None:
            self._shadow.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the threads; what is unfinished stays unacknowledged."""
        for stage in self._stages:
            stage.close()
        for thread in self._threads:
            thread.join(timeout=JOIN_TIMEOUT_S)
        if self._shadow is not None:
            self._shadow.close()

    def _requeue(self, payload: Payload) -> None:
        self.submit(payload)

    def _guarded(self, run: Callable[[], None]) -> None:
        """The edge of a thread: its error ends the process, and nothing unpublished is committed."""
        log = structlog.get_logger()
        try:
            run()
        except Abandoned as error:
            log.warning("abandoned", error=str(error))
        except Fatal as error:
            self._fail(error)
        except Exception as error:
            log.exception("thread_failed")
            self._fail(Fatal(f"unexpected {type(error).__name__} in a stage: {error}"))

    def _fail(self, error: Fatal) -> None:
        """Mark the worker as not ready; the polling thread then ends the process."""
        self._readiness.set("engine", str(error))
        self.failure = error


def _refuse(payload: Payload) -> None:
    raise TypeError(f"no stage takes {type(payload).__name__}: the last one must keep it")
