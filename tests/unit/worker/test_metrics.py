"""Metrics follow Prometheus' conventions, and several sets can live side by side."""

import re

from prometheus_client import generate_latest

from worker.metrics import STAGE_BUCKETS_S, Metrics


def test_names_have_the_prefix_a_unit_and_a_help_text() -> None:
    """Base units, ``_total`` where counted; the text tells an operator what it is."""
    families = list(Metrics().registry.collect())
    assert len(families) > 10
    for family in families:
        assert re.fullmatch(r"synthgate_[a-z_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|kb|mb)\b", family.name)
        assert len(family.documentation) > 10


def test_every_metric_is_in_the_registry() -> None:
    """None is counted and not shown."""
    metrics = Metrics()
    assert len(list(metrics.registry.collect())) == len(set(vars(metrics)) - {"registry"}) == 20


def test_two_sets_do_not_share_values() -> None:
    """There is no global registry behind them."""
    one, other = Metrics(), Metrics()
    one.verdicts.labels("block").inc()
    assert one.registry.get_sample_value("synthgate_verdicts_total", {"band": "block"}) == 1
    assert b'band="block"' not in generate_latest(other.registry)


def test_the_buckets_of_a_stage_are_seconds_in_order() -> None:
    """The histogram has base units, from a millisecond to minutes."""
    assert list(STAGE_BUCKETS_S) == sorted(set(STAGE_BUCKETS_S))
    assert (STAGE_BUCKETS_S[0], STAGE_BUCKETS_S[-1]) == (0.001, 300.0)
