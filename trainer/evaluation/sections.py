"""The sections of a report about generated images: families, photo-like pictures, pairs.

In: evidence. Out: Markdown; empty where a part was not measured. No errors.
"""

from collections.abc import Mapping, Sequence

from engines.bundle.manifest import GeneratorMetric
from trainer.evaluation.evidence import Evidence
from trainer.evaluation.grids import cell, grid, image
from trainer.evaluation.metrics import Family, Table
from trainer.evaluation.pairs import PairTable

_RANKING = {"auc": "AUC", "ap": "AP", "eer": "EER"}
_LOW_FPR = {"tpr_at_fpr_1": "TPR at FPR 1 %", "tpr_at_fpr_5": "TPR at FPR 5 %"}
_AT_ZERO = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "real_accuracy": "real accuracy",
    "fake_accuracy": "fake accuracy",
}


def families(evidence: Evidence, plot: str | None) -> str:
    """Table (a): every family against all real images, native and aligned side by side."""
    native = evidence.families[0]
    lines = [
        "## Unseen families against all real images",
        "",
        (
            f"Every family against the same {native.n_real} real images, native and aligned. Brackets "
            "hold 95 % bootstrap intervals. A family that training saw is marked *seen* and left out "
            "of the mean."
        ),
        "",
    ]
    for title, chosen in (
        ("How well they are ranked", _RANKING),
        ("At a low false-positive rate, the threshold being the best on this very split", _LOW_FPR),
        ("At the raw logit 0", _AT_ZERO),
    ):
        lines += [f"**{title}**", "", _figures(evidence.families, chosen), ""]
    for table in evidence.families:
        worst = table.of(table.worst)
        lines.append(
            f"- {table.condition}: mean AUC of {len(table.mean_over)} families "
            f"**{cell(table.mean['auc'])}**; worst: {table.worst}, "
            f"{cell(worst.figures['auc'])}, of {worst.n_fake} images"
        )
    return "\n".join([*lines, *image(plot, "ROC of every family")])


def _figures(tables: Sequence[Table], chosen: Mapping[str, str]) -> str:
    head = ["family", "n"]
    head += [f"{title}, {one.condition}" for title in chosen.values() for one in tables]
    rows = []
    for family in tables[0].families:
        found = [table.of(family.family) for table in tables]
        cells = [cell(one.figures[name]) for name in chosen for one in found]
        rows.append((_name(family), str(family.n_fake), *cells))
    means = [cell(table.mean[name]) for name in chosen for table in tables]
    rows.append(("**mean**", "", *means))
    return grid(head, rows)


def _name(family: Family) -> str:
    return f"{family.family} (seen)" if family.seen_in_training else family.family


def card_check(evidence: Evidence, card: Sequence[GeneratorMetric]) -> str:
    """What the bundle says of itself, beside what was measured just now."""
    rows = []
    for said in card:
        for table in evidence.families:
            if table.condition != said.condition:
                continue
            for family in table.families:
                if family.family == said.generator:
                    now = family.figures["auc"].value
                    rows.append(
                        (
                            said.generator,
                            said.condition,
                            f"{said.n_fake} / {family.n_fake}",
                            f"{said.n_real} / {table.n_real}",
                            f"{said.auc:.4f}",
                            f"{now:.4f}",
                            f"{now - said.auc:+.4f}",
                        )
                    )
    if not rows:
        return ""
    head = ("family", "condition", "fake, card / now", "real, card / now", "AUC, card", "now", "")
    return f"## What the bundle's manifest says, and what was measured now\n\n{grid(head, rows)}"


def photo_like(evidence: Evidence) -> str:
    """Photo-like generators beside photographs, at two sizes."""
    if not evidence.photo_like:
        return ""
    lines = [
        "## Photo-like pictures beside photographs",
        "",
        (
            f"{', '.join(one.family for one in evidence.photo_like[0].families)} against "
            f"{evidence.photo_like[0].n_real} photographs, at full size and with the longer side of "
            "every picture resampled."
        ),
        "",
        _figures(evidence.photo_like, {"auc": "AUC", "tpr_at_fpr_5": "TPR at FPR 5 %"}),
    ]
    return "\n".join(lines)


def pairs(evidence: Evidence) -> str:
    """Table (b): photographs against their own regenerations."""
    if not evidence.pairs:
        return ""
    lines = [
        "## Photographs against their own regenerations",
        "",
        (
            "Pairs of photographs of the evaluated split, or of none: no weight was trained on them. "
            "*Ranked right*: the share of pairs whose regeneration has the higher logit."
        ),
        "",
        _pairgrid(evidence.pairs),
    ]
    lines += [
        f"\nMean AUC over {', '.join(table.mean_over)}, {table.condition}: "
        f"**{cell(table.mean_auc)}**."
        for table in evidence.pairs
    ]
    return "\n".join(lines)


def _pairgrid(tables: Sequence[PairTable]) -> str:
    head = ["regenerator", "pairs"]
    head += [f"AUC, {one.condition}" for one in tables]
    head += [f"ranked right, {one.condition}" for one in tables]
    rows = []
    for index, family in enumerate(tables[0].families):
        found = [one.families[index] for one in tables]
        name = f"{family.family} (seen)" if family.seen_in_training else family.family
        cells = [cell(one.auc) for one in found] + [cell(one.ranked_right) for one in found]
        rows.append((name, str(family.n), *cells))
    return grid(head, rows)
