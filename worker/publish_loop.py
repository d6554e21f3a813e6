"""The publish thread: outcomes in groups to the publisher, then each ticket finished and its one log line written.

In: outcomes on a queue. Out: finished tickets. Errors: :class:`worker.errors.Fatal` and
:class:`worker.publish.Abandoned` from the publisher.
"""

import queue

import structlog

from worker.commit import OffsetTracker
from worker.health import Liveness
from worker.metrics import Metrics
from worker.publish import Publisher
from worker.render import Rendered, Renderer
from worker.work import Clock, Decided, Outcome, Rejected

GROUP_MAX = 256


class PublishLoop:
    """Publishes until its queue yields None.

    Args:
        outcomes: The queue; None ends the loop.
        renderer: Writes the messages.
        publisher: Gets them acknowledged.
        tracker: Is told of every published record.
        liveness: Is told of progress.
        metrics: Outcomes and durations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        outcomes: "queue.SimpleQueue[Outcome | None]",
        renderer: Renderer,
        publisher: Publisher,
        tracker: OffsetTracker,
        liveness: Liveness,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._outcomes, self._renderer, self._publisher = outcomes, renderer, publisher
        self._tracker, self._liveness = tracker, liveness
        self._metrics, self._clock = metrics, clock
        self._log = structlog.get_logger()

    def run(self) -> None:
        """Publish until the end of the queue."""
        while group := self._next_group():
            rendered = [self._renderer.render(outcome) for outcome in group]
            duplicates = self._publisher.publish([each.message for each in rendered])
            for position, each in enumerate(rendered):
                self._finish(each, duplicate=position in duplicates)

    def _next_group(self) -> list[Outcome]:
        """All outcomes that wait, at least one; none at the end."""
        group: list[Outcome] = []
        outcome = self._outcomes.get()
        while outcome is not None:
            group.append(outcome)
            if len(group) == GROUP_MAX:
                break
            try:
                outcome = self._outcomes.get_nowait()
            except queue.Empty:
                break
        else:
            self._outcomes.put(None)  # the end stays the end for the next look
        self._metrics.queue_depth.labels("publish").set(self._outcomes.qsize())
        return group

    def _finish(self, rendered: Rendered, *, duplicate: bool) -> None:
        outcome = rendered.outcome
        taken = outcome.taken if isinstance(outcome, Rejected) else outcome.scored.fetched.taken
        owned = self._tracker.finish(taken.ticket)
        now_s = self._clock()
        self._liveness.progressed(now_s)
        self._metrics.observe("total", taken.queued_ms / 1000 + now_s - taken.taken_at_s)
        if isinstance(outcome, Decided) and not duplicate:
            self._metrics.since("publish", outcome.decided_at_s, now_s)
        name = "duplicate" if duplicate else self._count(outcome)
        self._metrics.events.labels(name).inc()
        level = self._log.warning if isinstance(outcome, Rejected) else self._log.info
        level("image_event", outcome=name, still_owned=owned, **rendered.log)

    def _count(self, outcome: Outcome) -> str:
        if isinstance(outcome, Rejected):
            self._metrics.dead_letters.labels(outcome.stage, outcome.code).inc()
            return "dead_letter"
        self._metrics.verdicts.labels(outcome.decision.band).inc()
        return "verdict"
