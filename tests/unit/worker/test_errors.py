"""The three kinds of failure are told apart by type alone."""

import pytest

from worker.errors import Fatal, Poison, Retryable, WorkerError


def test_poison_carries_what_the_dead_letter_needs() -> None:
    """Stage, code, message and attempts; as text it is its message."""
    error = Poison("fetch", "unreachable", "the server answered 503", attempts=3)
    assert (error.stage, error.code, error.message, error.attempts) == (
        "fetch",
        "unreachable",
        "the server answered 503",
        3,
    )
    assert str(error) == "the server answered 503"
    assert Poison("event", "empty", "no value").attempts == 1


@pytest.mark.parametrize("kind", [Poison, Retryable, Fatal])
def test_no_kind_is_another(kind: type[WorkerError]) -> None:
    """Whoever catches one never swallows another."""
    others = {Poison, Retryable, Fatal} - {kind}
    assert issubclass(kind, WorkerError)
    assert not any(issubclass(kind, other) for other in others)
