"""How far a logit may be from its golden one."""

from engines.agreement import measured_tolerance


def test_a_tolerance_is_twice_what_was_measured_and_never_nothing() -> None:
    assert measured_tolerance(0.25) == 0.5
    assert measured_tolerance(0.0) == 1e-3
