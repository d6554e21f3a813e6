"""The sections of a report about thresholds, changes, scores and shortcuts.

In: evidence. Out: Markdown; empty where a part was not measured. No errors.
"""

from collections.abc import Mapping, Sequence

from trainer.evaluation.evidence import Evidence
from trainer.evaluation.grids import cell, grid, image
from trainer.evaluation.probes import SHORTCUTS, Probe
from trainer.evaluation.rates import Rate, by_threshold
from trainer.evaluation.shipped import points


def alarms(evidence: Evidence) -> str:
    """Table (c): real images at the thresholds of every set, by source; and what is caught."""
    if not evidence.alarms:
        return ""
    default, *others = evidence.threshold_sets
    lines = [
        "## False alarms on photographs of sources that training never saw",
        "",
        (
            "Real images at or above the shipped thresholds (brackets: Wilson intervals, 95 %), and the "
            "share of generated images caught there, the mean over the same families as above."
        ),
        "",
        _sets(evidence),
        "",
        f"By source, at `{default.id}` (the default):",
        "",
        _rates(evidence.alarms, default.id),
        "",
        "And what the same thresholds catch:",
        "",
        _rates(evidence.caught, default.id),
    ]
    for one in others:
        lines += ["", f"By source, at `{one.id}`:", "", _rates(evidence.alarms, one.id)]
    if others:
        lines += ["", "What the other sets catch of each family is in `report.json`."]
    return "\n".join(lines)


def apart(evidence: Evidence) -> str:
    """Real pictures of other kinds, at the thresholds of every set."""
    if not evidence.apart:
        return ""
    lines = [
        "## False alarms on other kinds of pictures",
        "",
        (
            "Real pictures that no other figure counts: beside them, kinds of pictures would tell the classes "
            "apart. Whoever receives many should set thresholds on some of their own."
        ),
    ]
    for one in evidence.threshold_sets:
        lines += ["", f"By source, at `{one.id}`:", "", _rates(evidence.apart, one.id)]
    return "\n".join(lines)


def _sets(evidence: Evidence) -> str:
    """Every threshold of every set: the rate it was set at, and what it does on this split."""
    unseen = evidence.families[0].mean_over
    head = ("set", "score >=", "where it was set", "real images here", "most of all", "caught")
    rows = []
    for thresholds in evidence.threshold_sets:
        alarms = by_threshold(evidence.alarms, thresholds.id)
        caught = by_threshold(evidence.caught, thresholds.id)
        for (band, point), reals, fakes in zip(
            points(thresholds).items(), alarms, caught, strict=True
        ):
            worst = max(reals, key=lambda one: one.value)
            share = sum(one.value for one in fakes if one.source in unseen) / len(unseen)
            rows.append(
                (
                    f"`{thresholds.id}` {band}",
                    f"{point.threshold:.4f}",
                    f"{point.fpr:.1%} [{point.fpr_ci_low:.1%}, {point.fpr_ci_high:.1%}]",
                    f"{reals[-1].reached} of {reals[-1].n} {_share(reals[-1])}",
                    f"{worst.source} {worst.value:.1%}",
                    f"{share:.1%}",
                )
            )
    return grid(head, rows)


def _rates(rates: Sequence[Rate], threshold_set: str) -> str:
    """The sources of one set, a row each, its thresholds side by side."""
    columns = by_threshold(rates, threshold_set)
    rows = [
        (found[0].source, str(found[0].n), *(f"{one.reached} {_share(one)}" for one in found))
        for found in zip(*columns, strict=True)
    ]
    return grid(("source", "n", *(one[0].threshold for one in columns)), rows)


def _share(rate: Rate) -> str:
    return f"({rate.value:.1%}) [{rate.low:.1%}, {rate.high:.1%}]"


def robustness(evidence: Evidence, plot: str | None) -> str:
    """Every change of the pictures, a row each."""
    changes = evidence.robustness
    rows = []
    for one in changes:
        table = one.table
        shares = [f"{share:.1%}" for share in one.caught.values()]
        alarms = [f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]" for rate in one.alarms]
        worst = table.of(table.worst).figures["auc"].value
        rows.append(
            (
                f"`{one.change}`",
                cell(table.mean["auc"]),
                f"{worst:.3f} ({table.worst})",
                cell(table.mean["tpr_at_fpr_5"]),
                *shares,
                *alarms,
            )
        )
    names = list(changes[0].caught)
    head = ["change", "mean AUC", "worst family", "TPR at FPR 5 %"]
    head += [f"caught at {one}" for one in names] + [f"real at {one}" for one in names]
    n_fake = sum(one.n_fake for one in changes[0].table.families)
    lines = [
        "## Robustness",
        "",
        (
            "Each change is applied to whole pictures, alike to both classes, before the crop; the "
            f"thresholds are those of the default set. {changes[0].table.n_real} real and {n_fake} generated "
            "pictures; shares caught are means over families."
        ),
        "",
        grid(head, rows),
        *image(plot, "Robustness curves"),
    ]
    return "\n".join(lines)


def scores(evidence: Evidence, plots: Mapping[str, str]) -> str:
    """Histograms and the reliability of the shipped calibration."""
    lines = ["## Scores", *image(plots.get("scores"), "Scores by class")]
    if evidence.reliability is not None:
        found = evidence.reliability
        lines += [
            "",
            (
                f"Of the shipped calibration on this split: ECE {found.ece:.3f} (ten bins of equal "
                f"width), NLL {found.nll:.3f}, {found.n} images, either class weighing one half."
            ),
            *image(plots.get("reliability"), "Reliability diagram"),
        ]
    return "\n".join(lines)


def probes(evidence: Evidence) -> str:
    """What tells the classes apart without a look at the picture."""
    by_name: dict[str, dict[str, Probe]] = {}
    for one in evidence.probes:
        by_name.setdefault(one.shortcut, {})[one.condition] = one
    rows = [
        (name, *(_probecell(by_name[name][condition]) for condition in ("native", "aligned")))
        for name in SHORTCUTS
    ]
    return "\n".join(
        [
            "## Shortcut probes",
            "",
            (
                "Balanced accuracy of a cross-validated logistic regression that sees nothing but the "
                "named trait (0.5 is chance; brackets hold the lowest and the highest of four "
                f"repeats). Over {evidence.probe_limit:g} on the aligned set, the run is void."
            ),
            "",
            grid(("trait", "native files", "aligned crops"), rows),
        ]
    )


def _probecell(probe: Probe) -> str:
    if probe.constant:
        return "the same for all"
    return f"{probe.balanced_accuracy:.3f} [{probe.low:.3f}, {probe.high:.3f}]"
