"""What a study found, as Markdown. Every sentence follows from figures, by rules written here.

In: findings. Out: text. No errors. A difference is called one only where its 95 % interval leaves
out zero, and a row is called preliminary until all of its cells are there.
"""

from collections.abc import Sequence

from trainer.config.study import StudyConfig
from trainer.evaluation.resampling import Interval
from trainer.progress import in_words
from trainer.study.analysis import Difference, Spread
from trainer.study.cost import Cost
from trainer.study.findings import CONDITIONS, Comparison, Repeated, RowFindings, Summary, unlearnt
from trainer.study.results import CellRecord


def head(
    study: StudyConfig,
    rows: Sequence[RowFindings],
    told: Repeated,
    written_at: str,
    machine: str,
    commits: Sequence[str],
) -> str:
    """The title, what ran, and the claim in one sentence for each condition."""
    lines = [
        "# Study: does learning a diffusion model's noise make the detector generalise?",
        "",
        f"Written {written_at} on {machine}; cells made by commit {', '.join(commits) or '(none)'}.",
        f"{len(study.folds)} folds, seeds {', '.join(map(str, study.seeds))}; in a fold these "
        "families are in no split but test: "
        + "; ".join(", ".join(fold) for fold in study.folds)
        + ".",
        "",
        "| row | compared | pairs of runs | mean AUC over families, native | aligned |",
        "|---|---|---|---|---|",
    ]
    lines += [
        _head_line(row, one)
        for row in rows
        for one in row.comparisons
        if (row.row, one.view) not in told
    ]
    claim = rows[0]
    lines += ["", "## The claim", ""]
    lines += [_claim(claim, one) for one in claim.comparisons]
    return "\n".join(lines)


def _head_line(row: RowFindings, one: Comparison) -> str:
    cells = [_signed(one.difference[name].mean) for name in CONDITIONS if name in one.difference]
    shown = " | ".join(cells) if cells else "not run yet | not run yet"
    return f"| {row.row} | {one.view} - {one.baseline} | {one.pairs} of {one.expected} | {shown} |"


def _claim(row: RowFindings, one: Comparison) -> str:
    if not one.difference:
        return f"`{one.view}` against `{one.baseline}`: no pair of runs counts yet. Nothing is claimed."
    parts = [f"{name}: {verdict(found)}" for name, found in one.difference.items()]
    left_out = sum(summary.unlearnt for summary in row.summaries)
    text = f"`{one.view}` against `{one.baseline}`, " + "; ".join(parts) + "."
    if left_out:
        text += f" {left_out} runs do not count as ANL and were left out."
    if one.pairs < one.expected:
        text += f" **Preliminary**: {one.pairs} of {one.expected} pairs of runs."
    return text


def verdict(found: Difference) -> str:
    """What an interval allows one to say."""
    if found.mean.low > 0:
        said = "better"
    elif found.mean.high < 0:
        said = "worse"
    else:
        said = "no difference shown"
    text = f"{said} ({_signed(found.mean)}; of families like these {_signed(found.mean_any)})"
    folds = found.signs.ahead + found.signs.behind
    return (
        f"{text}, ahead on {found.signs.ahead} of {folds} folds (sign test p = {found.signs.p:.2f})"
    )


def row_section(
    study: StudyConfig,
    row: RowFindings,
    told: Repeated,
    plots: Sequence[str],
    refused: str | None,
) -> str:
    """A row: its variants, its differences, its plots; what an earlier row has told is not told again."""
    lines = [f"## {row.row}", "", row.question, ""]
    others = row.summaries[1:]  # the baseline first
    if not any(one.done for one in others if (row.row, one.view) not in told):
        reason = f": {refused}" if refused else ""
        return "\n".join([*lines, f"Not run yet{reason}."])
    lines += [
        (
            "| variant | cells | AUC native (spread) | AUC aligned (spread) | worst family, native | "
            "noise explained | under the limit | a cell |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_summary_line(one) for one in row.summaries]
    if row.is_claim:
        lines += [
            "",
            (
                f"A run that explains under {study.min_explained_variance:.0%} of the noise does not count "
                "as ANL: it is in this table, and in no difference of this row."
            ),
        ]
    for one in row.comparisons:
        if (row.row, one.view) in told:
            lines += ["", f"`{one.view}` less `{one.baseline}`: see {told[row.row, one.view]}."]
        elif one.difference:
            lines += ["", *_comparison_table(one)]
    lines += [""] + [f"![{name}]({name})" for name in plots]
    return "\n".join(lines)


def _summary_line(one: Summary) -> str:
    if not one.done:
        return f"| {one.view} | 0 of {one.expected} | not run yet | | | | | |"
    aucs = " | ".join(_spread(one.mean_auc.get(name)) for name in CONDITIONS)
    worst = one.worst_auc.get("native")
    shown = f"{worst[0]} {worst[1]:.3f}" if worst else ""
    explained = _spread(one.explained) if one.explained else "-"
    return (
        f"| {one.view} | {one.done} of {one.expected} | {aucs} | {shown} | {explained} | "
        f"{one.unlearnt} | {in_words(one.wall_s)} |"
    )


def _comparison_table(one: Comparison) -> list[str]:
    first = next(iter(one.difference.values()))
    lines = [
        (
            f"`{one.view}` less `{one.baseline}`, {one.pairs} of {one.expected} pairs of runs, "
            f"{first.seeds} seeds; difference of AUC and its 95 % interval:"
        ),
        "",
        "| family | " + " | ".join(one.difference) + " |",
        "|---" * (1 + len(one.difference)) + "|",
    ]
    for family in first.families:
        shown = " | ".join(_signed(found.families[family]) for found in one.difference.values())
        lines.append(f"| {family} | {shown} |")
    for name, of in (("mean of these", "mean"), ("mean of families like these", "mean_any")):
        shown = " | ".join(_signed(getattr(found, of)) for found in one.difference.values())
        lines.append(f"| **{name}** | {shown} |")
    shown = " | ".join(
        f"{found.signs.ahead} : {found.signs.behind} (p = {found.signs.p:.2f})"
        for found in one.difference.values()
    )
    return [*lines, f"| folds ahead : behind | {shown} |"]


def cost_section(cost: Cost) -> str:
    """Nodes and latency of the three graphs."""
    same = "has" if cost.same_operators else "does **not** have"
    lines = [
        "## Cost in inference",
        "",
        (
            f"{cost.backbone}, one crop of {cost.crop_px} px, one thread of ONNX Runtime, {cost.rounds} "
            "rounds in which the graphs take turns. The graph exported with the gate off "
            f"{same} exactly the plain backbone's operators."
        ),
        "",
        "| graph | nodes | median | 10th to 90th percentile |",
        "|---|---|---|---|",
    ]
    for name, nodes in cost.nodes.items():
        took = cost.latency[name]
        lines.append(
            f"| {name} | {nodes} | {took.median_ms:.2f} ms | {took.p10_ms:.2f} to {took.p90_ms:.2f} ms |"
        )
    return "\n".join(lines)


def cells_section(study: StudyConfig, records: Sequence[CellRecord]) -> str:
    """Every cell, with a word where it failed or does not count."""
    lines = [
        "## Cells",
        "",
        "| cell | AUC native by family | noise explained | kept step | seconds | remark |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_cell_line(study, one) for one in records)])


def _cell_line(study: StudyConfig, one: CellRecord) -> str:
    if one.status == "failed":
        error = one.error.replace("|", "/").replace("\n", " ")
        return f"| {one.name} | | | | {one.wall_s:.0f} | failed: {error} |"
    aucs = ", ".join(
        f"{figure.family} {figure.auc:.3f}"
        for figure in one.families
        if figure.condition == "native" and figure.gate == "off"
    )
    explained = "-" if one.explained_variance is None else f"{one.explained_variance:.2f}"
    remark = "does not count as ANL" if unlearnt(one, study) else ""
    return f"| {one.name} | {aucs} | {explained} | {one.best_step} | {one.wall_s:.0f} | {remark} |"


def _signed(one: Interval) -> str:
    return one.shown("+.3f")


def _spread(one: Spread | None) -> str:
    if one is None:
        return ""
    return f"{one.mean:.3f}" + (f" ({one.std:.3f})" if one.std is not None else "")
