"""The folder of an evaluation: report.md, report.json, logits.json and the plots beside them.

In: evidence. Out: files. Errors: those of the file system. Attention maps show pictures of the
evaluated set, so the folder belongs beside the run and nowhere else.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from trainer.evaluation.attention import attention_maps, spread
from trainer.evaluation.evidence import Evidence
from trainer.evaluation.judged import Judged
from trainer.evaluation.markdown import first_line, markdown
from trainer.evaluation.plots.attention import attention_figure
from trainer.evaluation.plots.robustness import robustness_figure
from trainer.evaluation.plots.roc import roc_figure
from trainer.evaluation.plots.scores import reliability_figure, scores_figure
from trainer.evaluation.plots.style import save

REPORT, FIGURES, LOGITS = "report.md", "report.json", "logits.json"


def write_report(
    folder: Path,
    evidence: Evidence,
    judged: Judged,
    settings: dict[str, object],
    attention_images: int,
) -> Path:
    """Write everything; returns the path of report.md.

    Args:
        folder: is made where it does not exist; files of an earlier report are written over.
        evidence: the findings.
        judged: the detector, for its attention maps and its card.
        settings: what else report.json records: the configuration and its digest, the commit.
        attention_images: how many pictures get an attention map, where noise was learnt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = _plots(folder, evidence, judged, attention_images)
    _write(folder / FIGURES, json.dumps(as_json(evidence, settings), indent=2) + "\n")
    _write(folder / LOGITS, json.dumps(logits_by_key(evidence), indent=1) + "\n")
    _write(folder / REPORT, markdown(evidence, judged.card, plots))
    return folder / REPORT


def as_json(evidence: Evidence, settings: dict[str, object]) -> dict[str, object]:
    """Every figure as plain values; an interval has value, low and high."""
    return {
        "format": 1,
        "title": first_line(evidence).removeprefix("# "),
        "void": [asdict(one) for one in evidence.void],
        **settings,
        "subject": asdict(evidence.subject),
        "measured": asdict(evidence.measured),
        "families": {one.condition: asdict(one) for one in evidence.families},
        "photo_like": {one.condition: asdict(one) for one in evidence.photo_like},
        "pairs": {one.condition: asdict(one) for one in evidence.pairs},
        "threshold_sets": [one.model_dump() for one in evidence.threshold_sets],
        "false_alarms": [asdict(one) for one in evidence.alarms],
        "caught": [asdict(one) for one in evidence.caught],
        "false_alarms_apart": [asdict(one) for one in evidence.apart],
        "robustness": {one.change: asdict(one) for one in evidence.robustness},
        "reliability": asdict(evidence.reliability) if evidence.reliability else None,
        "probes": [asdict(one) for one in evidence.probes],
        "probe_limit": evidence.probe_limit,
        "notes": list(evidence.notes),
    }


def logits_by_key(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Each image's logit by condition and key: what ``paired_difference`` takes."""
    return {
        condition: {
            picture.source.key: float(np.round(logit, 6))
            for picture, logit in zip(scored.pictures, scored.logit_N, strict=True)
        }
        for condition, scored in evidence.scored.items()
    }


def _plots(folder: Path, evidence: Evidence, judged: Judged, maps: int) -> dict[str, str]:
    figures = {
        "roc": roc_figure(evidence),
        "robustness": robustness_figure(evidence.robustness),
        "scores": scores_figure(evidence.scored, judged.shipped),
        "reliability": reliability_figure(evidence.reliability) if evidence.reliability else None,
    }
    learnt = evidence.subject.explained_variance is not None
    shown = spread(evidence.scored["native"].pictures, maps)
    if judged.detector is not None and learnt and shown:
        found = attention_maps(judged.detector, shown, judged.spec.crop_px)
        figures["attention"] = attention_figure(found)
    return {
        name: save(figure, folder / f"{name}.png").name
        for name, figure in figures.items()
        if figure is not None
    }


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)
