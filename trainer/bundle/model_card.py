"""The model card: what a bundle is and is not, from what was measured.

A bundle that is trained on every generator at hand has none left to be judged by. A *development*
run stands in for it: the same recipe, with some generators left out. The card names every option
in which the two differ.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config import SPLITS, Config
from trainer.errors import ExportError
from trainer.evaluation.calibration import CalibrationResult, FalseAlarms, points
from trainer.evaluation.metrics import SplitResult, result_from_json
from trainer.markdown import render
from trainer.training import checkpoint
from trainer.training.checkpoint import (
    STARTED_FROM,
    Best,
    describe_mean,
    read_json,
    refuse_other_settings,
    seen_generators,
    unlearnt,
)

EVALUATION = "evaluate-test.json"
_POOR_AUC = 0.8  # below it a family is named among the known failures
_POOR_FAKE_ACCURACY = 0.5
_NOT_THE_RECIPE = ("evaluation.", "export.", "data.splits.")  # the two runs differ in these


@dataclass(frozen=True)
class Development:
    """A run that left generators out, and its evaluation."""

    digest: str  # SHA-256 of its best.pt
    step: int
    tested: SplitResult
    findings: tuple[str, ...]
    averaged: str  # of which runs its weights are the mean; empty where they are its own
    differences: tuple[str, ...]  # options, each with both values


def model_card(
    config: Config,
    best: Best,
    lineage: Mapping[str, str],
    tested: SplitResult,
    calibration: CalibrationResult,
    findings: Sequence[str] = (),
    development: Development | None = None,
) -> str:
    """The text of MODEL_CARD.md.

    Args:
        config: of the run.
        best: the chosen weights.
        lineage: what they were made from.
        tested: the families of the test split.
        calibration: the fit and the thresholds.
        findings: other results of the evaluation (``trainer.evaluation.report.findings``).
        development: the run that left out generators which this one knows.
    """
    saw = seen_generators(lineage).saw
    sets_by_images: dict[str, list[str]] = {}
    alarms_by_folder: dict[str, dict[str, FalseAlarms]] = {}
    for thresholds in calibration.sets:
        on = f"{thresholds.review.n_real} real images ({thresholds.measured_on})"
        sets_by_images.setdefault(on, []).append(thresholds.name)
        for alarms in thresholds.false_alarms:
            alarms_by_folder.setdefault(alarms.folder, {})[thresholds.name] = alarms
    return render(
        "trainer.bundle",
        "model_card.md.j2",
        config=config,
        export=config.export,
        best=best,
        lineage=lineage,
        method=_method(config, best),
        tested=tested,
        seen=sorted({row.generator for row in tested.families if saw(row.generator)}),
        calibration=calibration,
        points=points,
        sets_by_images=sets_by_images,
        alarms_by_folder=alarms_by_folder,
        findings=findings,
        development=development,
        splits={name: getattr(config.data.splits, name) for name in SPLITS},
        start=_start(lineage),
        averaged=describe_mean(lineage),
        poor_auc=_POOR_AUC,
        poor_fake_accuracy=_POOR_FAKE_ACCURACY,
    )


def _method(config: Config, best: Best) -> str:
    if unlearnt(config, best):
        return "trained with a noise head that did not learn its target: not ANL (docs/concepts/anl.md)"
    return (
        "trained by ANL (docs/concepts/anl.md)" if config.loss.lambda_noise else "trained plainly"
    )


def _start(lineage: Mapping[str, str]) -> str:
    """Whose weights the first step began with; empty where they were nobody's."""
    origin = lineage.get(STARTED_FROM, "")
    if origin.startswith("sha256:"):
        return f"another run's: best.pt {origin}"
    return origin and f"those of the {origin}"


def read_development(config: Config) -> Development | None:
    """Read the run that ``export.development`` names; None where it is not set.

    Raises:
        CheckpointError: it was not evaluated, or with other crops.
        ExportError: it knew the generators itself.
    """
    if not config.export.development:
        return None
    folder = Path(config.export.development)
    best, lineage = checkpoint.read_best(folder)
    path = folder / EVALUATION
    evaluated = read_json(path, "evaluate")
    again = f"run python -m trainer evaluate of {folder} again, with the crops of this one"
    refuse_other_settings(evaluated, config, path, (), again)
    tested, known = result_from_json(evaluated, path), seen_generators(lineage)
    seen = sorted({row.generator for row in tested.families if known.saw(row.generator)})
    if seen:
        raise ExportError(
            f"the run in {folder} was trained on {', '.join(seen)}, which its own test split judges: "
            "export.development needs a run that leaves its test generators out of training"
        )
    return Development(
        digest=hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest(),
        step=best.step,
        tested=tested,
        findings=findings_of(evaluated),
        averaged=describe_mean(lineage),
        differences=tuple(_differences(checkpoint.config_of(folder, lineage), config)),
    )


def findings_of(evaluated: Mapping[str, object]) -> tuple[str, ...]:
    """The sentences that evaluate wrote for the card."""
    findings = evaluated.get("findings", [])
    return tuple(map(str, findings)) if isinstance(findings, list) else ()


def _differences(before: Config, now: Config) -> list[str]:
    first, second = checkpoint.flat_config(before), checkpoint.flat_config(now)

    def shown(value: object) -> str:
        return str(value) if value not in {None, ""} else "unset"

    return [
        f"`{key}` {shown(first.get(key))} there, {shown(second.get(key))} here"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key) and not key.startswith(_NOT_THE_RECIPE)
    ]
