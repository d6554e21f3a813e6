"""Membership: a worker whose commits are refused for long is no member of its group, whatever it believes.

In: whether each commit was taken, and when. Out: readiness. Errors: :class:`Fatal` once no rebalance can explain it.

A rebalance refuses commits while it lasts. It is over when all members have joined, or have been put out of
the group for not joining within ``max_poll_interval_ms``.
"""

from worker.errors import Fatal
from worker.health import Readiness
from worker.settings import KafkaSettings

NAME = "commits"


class Membership:
    """Watches for how long commits have been refused. Pure but for the readiness that it sets.

    Args:
        kafka: The session's timeout, after which this worker is not ready, and the group's longest rebalance,
            a session after which it gives up.
        readiness: Is told of the first, under ``commits``.
    """

    def __init__(self, kafka: KafkaSettings, readiness: Readiness) -> None:
        self._not_ready_after_s = kafka.session_timeout_ms / 1000
        self._gone_after_s = self._not_ready_after_s + kafka.max_poll_interval_ms / 1000
        self._readiness = readiness
        self._refused_since_s: float | None = None

    def accepted(self) -> None:
        """A commit was taken, or there is nothing to commit."""
        if self._refused_since_s is not None:
            self._refused_since_s = None
            self._readiness.set(NAME, None)

    def refused(self, now_s: float) -> None:
        """A commit was refused for want of membership.

        Args:
            now_s: Monotonic seconds.

        Raises:
            Fatal: It has lasted for longer than any rebalance does: only joining anew helps.
        """
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        lasted_s = now_s - self._refused_since_s
        if lasted_s > self._gone_after_s:
            raise Fatal(
                f"every commit has been refused for {lasted_s:.0f} s, longer than a rebalance can last "
                "(kafka.max_poll_interval_ms and a session): this worker has fallen out of its group; "
                "start it again, and it joins anew"
            )
        if lasted_s > self._not_ready_after_s:
            self._readiness.set(
                NAME,
                f"refused for {lasted_s:.0f} s: the group rebalances, or this worker fell out of it",
            )
