"""The sections of a report about thresholds, changes, scores and shortcuts.

In: evidence. Out: Markdown; empty where a part was not measured. No errors.
"""

from collections.abc import Mapping, Sequence

from trainer.evaluation.evidence import Evidence
from trainer.evaluation.grids import cell, grid, image
from trainer.evaluation.probes import SHORTCUTS, Probe
from trainer.evaluation.rates import Rate


def alarms(evidence: Evidence) -> str:
    """Table (c): real images at the shipped thresholds, by source; and what is caught."""
    if not evidence.alarms:
        return ""
    return "\n".join(
        [
            "## False alarms on photographs of sources that training never saw",
            "",
            "Real images at or above the shipped thresholds, by source (Wilson intervals, 95 %).",
            "",
            _rates(evidence.alarms),
            "",
            "And what the same thresholds catch:",
            "",
            _rates(evidence.caught),
        ]
    )


def _rates(rates: Sequence[Rate]) -> str:
    thresholds = list(dict.fromkeys(one.threshold for one in rates))
    sources = list(dict.fromkeys(one.source for one in rates))
    rows = []
    for source in sources:
        found = [
            next(one for one in rates if one.source == source and one.threshold == name)
            for name in thresholds
        ]
        cells = [
            f"{one.reached} ({one.value:.1%}) [{one.low:.1%}, {one.high:.1%}]" for one in found
        ]
        rows.append((source, str(found[0].n), *cells))
    return grid(("source", "n", *thresholds), rows)


def robustness(evidence: Evidence, plot: str | None) -> str:
    """Every change of the pictures, a row each."""
    points = evidence.robustness
    rows = []
    for one in points:
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
    names = list(points[0].caught)
    head = ["change", "mean AUC", "worst family", "TPR at FPR 5 %"]
    head += [f"caught at {one}" for one in names] + [f"real at {one}" for one in names]
    n_fake = sum(one.n_fake for one in points[0].table.families)
    lines = [
        "## Robustness",
        "",
        (
            "Each change is applied to whole pictures, alike to both classes, before the crop; the "
            f"thresholds stay as shipped. {points[0].table.n_real} real and {n_fake} generated "
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
