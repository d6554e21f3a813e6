"""A watcher for builds that nobody watches."""


class Nobody:
    """See ``engines.compile.plan.Watcher``."""

    def phase_started(self, phase: str, within: str | None, steps: int) -> None:
        """Pass over it."""

    def step_done(self, phase: str, step: int) -> None:
        """Pass over it."""

    def phase_ended(self, phase: str) -> None:
        """Pass over it."""
