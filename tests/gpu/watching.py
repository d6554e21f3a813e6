"""A watcher for builds that nobody watches."""


class Nobody:
    """See ``engines.compile.plan.Watcher``."""

    def began(self, phase: str, within: str | None, steps: int) -> None:
        """Pass over it."""

    def stepped(self, phase: str, step: int) -> None:
        """Pass over it."""

    def ended(self, phase: str) -> None:
        """Pass over it."""
