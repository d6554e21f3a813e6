"""The folder of an evaluation: report.md, report.json, logits.json and the plots beside them.

Attention maps show pictures of the evaluated set, so the folder belongs beside the run and nowhere
else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engines.bundle.files import write_atomically
from engines.bundle.manifest import GeneratorMetric
from trainer.evaluation.calibration import by_threshold, points
from trainer.evaluation.plots import (
    attention_figure,
    attention_maps,
    reliability_figure,
    robustness_figure,
    roc_figure,
    save,
    scores_figure,
    spread,
)
from trainer.evaluation.run import EvaluatedModel, Evaluation
from trainer.markdown import render

REPORT, FIGURES, LOGITS = "report.md", "report.json", "logits.json"
_UNLEARNT = 0.3  # of the noise's variance: below it, a run does not count as ANL


def write_report(
    folder: Path,
    evaluation: Evaluation,
    model: EvaluatedModel,
    settings: Mapping[str, object],
    attention_images: int,
) -> Path:
    """Write everything; returns the path of report.md.

    Args:
        folder: is made where it does not exist; files of an earlier report are replaced.
        evaluation: what was measured.
        model: the detector, for its attention maps and its card.
        settings: what else report.json records: the configuration and its digest, the commit.
        attention_images: how many pictures get an attention map, where noise was learnt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = _plots(folder, evaluation, model, attention_images)
    write_atomically(folder / FIGURES, json.dumps(as_json(evaluation, settings), indent=2) + "\n")
    write_atomically(folder / LOGITS, json.dumps(logits_by_key(evaluation), indent=1) + "\n")
    write_atomically(folder / REPORT, markdown(evaluation, model.card, plots))
    return folder / REPORT


def title(evaluation: Evaluation) -> str:
    """What stands first: whether the evaluation is void, or what was evaluated."""
    if evaluation.void:
        worst = max(evaluation.void, key=lambda probe: probe.balanced_accuracy)
        return (
            f"VOID: {worst.shortcut} alone tells the aligned classes apart with a balanced "
            f"accuracy of {worst.balanced_accuracy:.3f}, over {evaluation.probe_limit:g}"
        )
    return f"Evaluation of {evaluation.info.name} on the {evaluation.evaluated.split} split"


def markdown(
    evaluation: Evaluation, card: Sequence[GeneratorMetric], plots: Mapping[str, str]
) -> str:
    """The text of report.md.

    Args:
        evaluation: what was measured.
        card: what a bundle's manifest says was measured.
        plots: names of files, by plot.
    """
    names = ("roc", "robustness", "scores", "reliability", "attention")
    card_rows = [
        (metric, table, family)
        for metric in card
        for table in evaluation.families
        if table.condition == metric.condition
        for family in table.families
        if family.family == metric.generator
    ]
    return render(
        "trainer.evaluation",
        "report.md.j2",
        title=f"# {title(evaluation)}",
        evaluation=evaluation,
        card_rows=card_rows,
        plots={name: plots.get(name) for name in names},
        by_threshold=by_threshold,
        points=points,
        unlearnt=_UNLEARNT,
    )


def findings(evaluation: Evaluation) -> list[str]:
    """What a reader of the model card must know beside the table of families, in sentences."""
    text = render(
        "trainer.evaluation", "findings.md.j2", evaluation=evaluation, by_threshold=by_threshold
    )
    return [line for line in text.splitlines() if line]


def as_json(evaluation: Evaluation, settings: Mapping[str, object]) -> dict[str, object]:
    """Every figure as plain values; an interval has value, low and high."""
    return {
        "format": 1,
        "title": title(evaluation),
        "void": [asdict(probe) for probe in evaluation.void],
        **settings,
        "subject": asdict(evaluation.info),
        "measured": asdict(evaluation.evaluated),
        "families": {table.condition: asdict(table) for table in evaluation.families},
        "photo_like": {table.condition: asdict(table) for table in evaluation.photo_like},
        "pairs": {table.condition: asdict(table) for table in evaluation.pairs},
        "threshold_sets": [thresholds.model_dump() for thresholds in evaluation.threshold_sets],
        "false_alarms": [asdict(rate) for rate in evaluation.alarms],
        "caught": [asdict(rate) for rate in evaluation.caught],
        "false_alarms_out_of_domain": [asdict(rate) for rate in evaluation.out_of_domain],
        "robustness": {point.change: asdict(point) for point in evaluation.robustness},
        "reliability": asdict(evaluation.reliability) if evaluation.reliability else None,
        "probes": [asdict(probe) for probe in evaluation.probes],
        "probe_limit": evaluation.probe_limit,
        "notes": list(evaluation.notes),
    }


def logits_by_key(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Each image's logit by condition and key, so that detectors can be compared by image."""
    return {
        condition: {
            picture.source.key: float(np.round(logit, 6))
            for picture, logit in zip(scored.pictures, scored.logit_N, strict=True)
        }
        for condition, scored in evaluation.scored.items()
    }


def _plots(
    folder: Path, evaluation: Evaluation, model: EvaluatedModel, attention_images: int
) -> dict[str, str]:
    figures = {
        "roc": roc_figure(evaluation),
        "robustness": robustness_figure(evaluation.robustness),
        "scores": scores_figure(evaluation.scored, model.deployed),
        "reliability": reliability_figure(evaluation.reliability)
        if evaluation.reliability
        else None,
    }
    learnt = evaluation.info.explained_variance is not None
    shown = spread(evaluation.scored["native"].pictures, attention_images)
    if model.detector is not None and learnt and shown:
        maps = attention_maps(model.detector, shown, model.spec.crop_px)
        figures["attention"] = attention_figure(maps)
    return {
        name: save(figure, folder / f"{name}.png").name
        for name, figure in figures.items()
        if figure is not None
    }
