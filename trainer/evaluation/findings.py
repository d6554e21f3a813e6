"""An evaluation in a few sentences, for a model card.

In: evidence. Out: sentences, each with n and interval. No errors. The whole is in the report.
"""

from collections.abc import Sequence

from trainer.evaluation.evidence import Evidence
from trainer.evaluation.metrics import Table
from trainer.evaluation.rates import ALL, Rate, by_threshold
from trainer.evaluation.resampling import Interval

_WORST_CHANGES = 3


def findings(evidence: Evidence) -> list[str]:
    """What a reader of the card must know beside the table of families."""
    return [
        *_void(evidence),
        *_ranking(evidence),
        *_alarms(evidence),
        *_apart(evidence),
        *_robustness(evidence),
    ]


def _void(evidence: Evidence) -> list[str]:
    if not evidence.void:
        return []
    found = ", ".join(f"{one.shortcut} {one.balanced_accuracy:.2f}" for one in evidence.void)
    return [
        (
            f"**The evaluation is VOID**: shortcuts alone tell its aligned classes apart ({found} "
            f"balanced accuracy, over {evidence.probe_limit:g}). What the figures owe to forgery, and "
            "what to kinds of picture, cannot be said."
        )
    ]


def _ranking(evidence: Evidence) -> list[str]:
    lines = [_table("Generators", one, one.condition) for one in evidence.families]
    lines += [
        _table("Photo-like generators beside photographs", one, one.condition)
        for one in evidence.photo_like
    ]
    lines += [
        f"Photographs against their own regenerations by {', '.join(one.mean_over)}, "
        f"{one.condition}: mean AUC {_figure(one.mean_auc)}, "
        f"{sum(family.n for family in one.families)} pairs."
        for one in evidence.pairs
    ]
    return lines


def _table(what: str, table: Table, condition: str) -> str:
    n_fake = sum(one.n_fake for one in table.families)
    return (
        f"{what}, {condition}: mean AUC {_figure(table.mean['auc'])} of {len(table.mean_over)}, "
        f"{n_fake} images against {table.n_real}."
    )


def _alarms(evidence: Evidence) -> list[str]:
    return _false_alarms("Photographs of other sources", evidence.alarms, evidence)


def _apart(evidence: Evidence) -> list[str]:
    named = ", ".join(dict.fromkeys(one.source for one in evidence.apart if one.source != ALL))
    return _false_alarms("Real pictures of other kinds", evidence.apart, evidence, f" ({named})")


def _false_alarms(
    what: str, rates: Sequence[Rate], evidence: Evidence, more: str = ""
) -> list[str]:
    """Each threshold of the default set with its worst source, then each other set in a line."""
    if not rates:
        return []
    default, *others = evidence.threshold_sets
    lines = [_with_worst(f"{what}{more}", inside) for inside in by_threshold(rates, default.id)]
    for other in others:
        wholes = [inside[-1] for inside in by_threshold(rates, other.id)]
        named = ", ".join(f"{one.threshold} {_rate(one)}" for one in wholes)
        lines.append(f"{what} at the thresholds of `{other.id}`: {named}.")
    return lines


def _with_worst(what: str, rates: Sequence[Rate]) -> str:
    """One threshold: all sources, and the one that reaches it most often."""
    whole, worst = rates[-1], max(rates, key=lambda one: one.value)
    line = f"{what} at {whole.threshold}: {_rate(whole)}"
    more = f"; most of all {worst.source}: {_rate(worst)}" if worst is not whole else ""
    return f"{line}{more}."


def _robustness(evidence: Evidence) -> list[str]:
    changed: Sequence[tuple[str, Interval]] = [
        (one.change, one.table.mean["auc"]) for one in evidence.robustness[1:]
    ]
    worst = sorted(changed, key=lambda one: one[1].value)[:_WORST_CHANGES]
    if not worst:
        return []
    named = "; ".join(f"`{name}` {_figure(auc)}" for name, auc in worst)
    native = _figure(evidence.robustness[0].table.mean["auc"])
    return [
        (
            f"After the worst of {len(changed)} changes of whole pictures, mean AUC: {named} "
            f"(untouched, the same pictures: {native})."
        )
    ]


def _figure(figure: Interval) -> str:
    return figure.shown()


def _rate(rate: Rate) -> str:
    return f"{rate.reached} of {rate.n} [{rate.low:.1%}, {rate.high:.1%}]"
