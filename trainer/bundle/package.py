"""The manifest of a trained detector.

In: the configuration, the chosen weights, what evaluation and calibration measured. Out: a
``Manifest`` without its files. No errors of its own.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from engines.bundle.manifest import (
    Calibration,
    GeneratorMetric,
    Lineage,
    Manifest,
)
from trainer.bundle.export import input_spec
from trainer.bundle.model_card import Measured
from trainer.bundle.operating import bundle_stem, threshold_sets
from trainer.config import Config
from trainer.evaluation.families import FamilyResult, Report
from trainer.training.checkpoint import Best, flat_config
from trainer.training.known import Known, known_by
from trainer.training.loop import export_spec
from trainer.training.mean_of_runs import AVERAGED
from trainer.training.starting import STARTED_FROM


def build_manifest(
    config: Config, best: Best, lineage: Mapping[str, str], tested: Report, measured: Measured
) -> Manifest:
    """Everything but the files, which are listed when they are written."""
    stem = bundle_stem(config.export)
    sets = threshold_sets(stem, measured.sets)
    known = known_by(lineage)
    return Manifest(
        name=config.export.name,
        version=config.export.version,
        created_at=datetime.now(UTC),
        input=input_spec(config),
        preprocess=export_spec(config),
        calibration=_calibration(stem, measured),
        threshold_sets=sets,
        default_threshold_set=sets[0].id,
        metrics=tuple(_metric(one, known) for one in tested.families),
        explained_variance=best.explained_variance,
        lineage=Lineage(
            code_commit=lineage["code_commit"],
            data_digest=lineage["data_digest"],
            teacher_id=lineage["teacher_id"],
            seed=config.seed,
            created_by="python -m trainer export",
            config=flat_config(config) | known.as_lineage() | _before(lineage),
        ),
        tolerances={"fp32": config.export.tolerance},
        runtimes=("onnxruntime-cpu",),
    )


def _before(lineage: Mapping[str, str]) -> dict[str, str]:
    """The weights that the first step began with, where they were another run's; the runs of a mean."""
    names = {"train.start_from": STARTED_FROM, "train.averaged": AVERAGED}
    return {option: lineage[name] for option, name in names.items() if name in lineage}


def _calibration(stem: str, measured: Measured) -> Calibration:
    fit = measured.fit
    return Calibration(
        id=f"{stem}-{fit.method}",
        method=fit.method,
        scale=fit.scale,
        bias=fit.bias,
        fitted_on=measured.fitted_on,
        n=fit.n,
        ece=fit.ece,
        nll=fit.nll,
    )


def _metric(one: FamilyResult, known: Known) -> GeneratorMetric:
    return GeneratorMetric(
        generator=one.generator,
        condition=one.condition,
        seen_in_training=known.saw(one.generator),
        n_fake=one.n_fake,
        n_real=one.n_real,
        auc=one.auc,
        ap=one.ap,
        accuracy_at_half=one.accuracy_at_half,
        real_accuracy=one.real_accuracy,
        fake_accuracy=one.fake_accuracy,
    )
