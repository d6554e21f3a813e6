"""An evaluation: what is measured of a detector, and in which order.

What cannot be measured (no thresholds yet, no pairs, too few pictures) is named in ``notes``, and
is never left out in silence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.bundle.manifest import GeneratorMetric, PreprocessSpec, ThresholdSet
from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture, evenly
from trainer.data.pairs import Pair
from trainer.detector import Detector
from trainer.evaluation.calibration import (
    ALL_SOURCES,
    Deployment,
    Reliability,
    ThresholdRate,
    points,
    reliability,
    threshold_rate,
    threshold_rates,
)
from trainer.evaluation.metrics import (
    PAIR_CONDITIONS,
    Bootstrap,
    FamilyTable,
    PairTable,
    Seen,
    SplitResult,
    family_results,
    family_table,
    pair_table,
    score_pairs,
    seen_by,
    split_result,
)
from trainer.evaluation.probes import Probe, probe_all, too_few, void
from trainer.evaluation.scoring import (
    CONDITIONS,
    Infer,
    ScoredPictures,
    change_of,
    matches,
    score,
    split_out_of_domain,
)

Notify = Callable[[str], None]


@dataclass(frozen=True)
class DetectorInfo:
    """The detector that is evaluated.

    Attributes:
        kind: a run of this trainer, or an exported bundle.
        name: its folder's name, or the bundle's name and version.
        sha256: of best.pt, or of the bundle's manifest (which names every file by its digest).
        code_commit: of the code that trained it.
        training_data_digest: of the files it was trained and tuned on.
        teacher_id: the teacher whose noise it learnt.
        explained_variance: of that noise, on held-out crops; None where none was learnt.
        seen_fake: selectors of the generated folders that it was trained on.
        seen_regenerators: families whose pairs it was trained on.
    """

    kind: Literal["run", "bundle"]
    name: str
    sha256: str
    code_commit: str
    training_data_digest: str
    teacher_id: str
    explained_variance: float | None
    seen_fake: tuple[str, ...]
    seen_regenerators: tuple[str, ...]

    def saw(self, family: str) -> bool:
        """Whether it was trained on images of a generator."""
        return seen_by(self.seen_fake)(family)

    def saw_pairs(self, family: str) -> bool:
        """Whether it was trained on regenerations of a family."""
        return seen_by(self.seen_regenerators)(family) or self.saw(family)


@dataclass(frozen=True)
class EvaluatedModel:
    """A run's chosen weights, or a bundle, ready to score pictures.

    Attributes:
        info: what it is.
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        spec: how a worker crops for it.
        deployed: its calibration and thresholds; None before ``calibrate``.
        detector: with its noise head, for attention maps; None for a bundle, which has none.
        card: what a bundle's manifest says was measured; empty for a run.
    """

    info: DetectorInfo
    infer: Infer
    spec: PreprocessSpec
    deployed: Deployment | None
    detector: Detector | None
    card: tuple[GeneratorMetric, ...]


@dataclass(frozen=True)
class EvaluatedSet:
    """The evaluated images."""

    split: str
    n_real: int
    n_fake: int
    sha256: str  # of the names and digests of all of them, those out of domain included
    n_out_of_domain: int = 0  # real pictures of other kinds, not among n_real


@dataclass(frozen=True)
class RobustnessPoint:
    """The figures after one change of the pictures, at the thresholds of the default set.

    Attributes:
        change: its name, or "native".
        table: of the families.
        caught: by threshold, the share of generated images at or above it, the mean over the
            families of ``table.mean_over``.
        alarms: the real images that reach each threshold.
    """

    change: str
    table: FamilyTable
    caught: dict[str, float]
    alarms: tuple[ThresholdRate, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured, in the order of the report."""

    info: DetectorInfo
    evaluated: EvaluatedSet
    summary: SplitResult
    scored: Mapping[str, ScoredPictures]  # by condition
    families: tuple[FamilyTable, ...]
    photo_like: tuple[FamilyTable, ...]
    pairs: tuple[PairTable, ...]
    threshold_sets: tuple[ThresholdSet, ...]  # the default set first; none before calibrate
    alarms: tuple[ThresholdRate, ...]
    caught: tuple[ThresholdRate, ...]
    out_of_domain: tuple[ThresholdRate, ...]  # real pictures that no other figure counts
    robustness: tuple[RobustnessPoint, ...]
    reliability: Reliability | None
    probes: tuple[Probe, ...]
    probe_limit: float
    notes: tuple[str, ...]

    @property
    def void(self) -> list[Probe]:
        """The shortcuts that make the figures say little of forgery; empty where all is well."""
        return void(self.probes, self.probe_limit)


def run_evaluation(
    model: EvaluatedModel,
    pictures: Sequence[Picture],
    pairs: Sequence[Pair],
    evaluated: EvaluatedSet,
    config: EvaluationConfig,
    notify: Notify,
) -> Evaluation:
    """Measure everything; each long part is announced before it begins."""
    bootstrap = Bootstrap(config.resamples, config.seed)
    notes = _notes(model, pictures, pairs, config)
    pictures, other_kinds = split_out_of_domain(pictures, config.out_of_domain)
    notify(f"scoring {len(pictures)} pictures, native and aligned")
    scored = {name: score(model.infer, pictures, model.spec, name) for name in CONDITIONS}
    native, deployed = scored["native"], model.deployed
    results = [row for name in CONDITIONS for row in family_results(scored[name], name)]
    return Evaluation(
        info=model.info,
        evaluated=evaluated,
        summary=split_result(results),
        scored={str(name): one for name, one in scored.items()},
        families=tuple(
            family_table(one, name, model.info.saw, bootstrap) for name, one in scored.items()
        ),
        photo_like=_photo_like(model, native, bootstrap, config, notify),
        pairs=_pairs(model, pairs, bootstrap, notify),
        threshold_sets=deployed.sets if deployed else (),
        alarms=threshold_rates(native, 0, deployed) if deployed else (),
        caught=threshold_rates(native, 1, deployed) if deployed else (),
        out_of_domain=_out_of_domain(model, other_kinds, notify),
        robustness=_robustness(model, native, bootstrap, config, notify),
        reliability=reliability(native, deployed) if deployed else None,
        probes=probe_all(pictures, model.spec),
        probe_limit=config.probe_limit,
        notes=tuple(notes),
    )


def photo_like_pictures(pictures: Sequence[Picture], config: EvaluationConfig) -> list[Picture]:
    """The pictures of the photo-like generators of this split, and the photographs beside them.

    Most of what tells drawings from photographs is subject; here both classes are photographs to
    the eye. Empty where the split lacks either: one configuration serves all splits.
    """
    kept = [
        picture
        for picture in pictures
        if picture.source.folder
        in (config.photo_like if picture.source.label else config.photographs)
        or (not picture.source.label and not config.photographs)
    ]
    return kept if {picture.source.label for picture in kept} == {0, 1} else []


def _photo_like(
    model: EvaluatedModel,
    native: ScoredPictures,
    bootstrap: Bootstrap,
    config: EvaluationConfig,
    notify: Notify,
) -> tuple[FamilyTable, ...]:
    """At full size, and with the longer side of every picture at a common size.

    At the common size the traces of single pixels are weak, as they are in what sites show.
    """
    inside = photo_like_pictures(native.pictures, config)
    if not inside:
        return ()
    notify(f"photo-like pictures beside photographs: {len(inside)}, at two sizes")
    size = f"longer{config.photo_like_px}"
    resized = score(model.infer, inside, model.spec, "native", change_of(size))
    return tuple(
        family_table(scored, name, model.info.saw, bootstrap)
        for name, scored in (("native", native.within(inside)), (size, resized))
    )


def _pairs(
    model: EvaluatedModel, pairs: Sequence[Pair], bootstrap: Bootstrap, notify: Notify
) -> tuple[PairTable, ...]:
    if not pairs:
        return ()
    notify(f"{len(pairs)} pairs of photographs and their regenerations")
    return tuple(
        pair_table(
            score_pairs(model.infer, pairs, model.spec, name), name, model.info.saw_pairs, bootstrap
        )
        for name in PAIR_CONDITIONS
    )


def _out_of_domain(
    model: EvaluatedModel, pictures: Sequence[Picture], notify: Notify
) -> tuple[ThresholdRate, ...]:
    if not pictures or model.deployed is None:
        return ()
    notify(f"{len(pictures)} real pictures of other kinds")
    return threshold_rates(score(model.infer, pictures, model.spec, "native"), 0, model.deployed)


def _robustness(
    model: EvaluatedModel,
    native: ScoredPictures,
    bootstrap: Bootstrap,
    config: EvaluationConfig,
    notify: Notify,
) -> tuple[RobustnessPoint, ...]:
    inside = thinned(native.pictures, config.robustness_per_folder)

    def measure(name: str, scored: ScoredPictures) -> RobustnessPoint:
        return robustness_point(name, scored, model.info.saw, model.deployed, bootstrap)

    measured = [measure("native", native.within(inside))]
    for name in config.changes:
        notify(f"robustness: {name}, {len(inside)} pictures")
        changed = score(model.infer, inside, model.spec, "native", change_of(name))
        measured.append(measure(name, changed))
    return tuple(measured)


def thinned(pictures: Sequence[Picture], per_folder: int) -> list[Picture]:
    """At most so many of each folder, evenly spread; all of them where it is 0."""
    if per_folder == 0:
        return list(pictures)
    folders: dict[tuple[int, str], list[Picture]] = {}
    for picture in pictures:
        folders.setdefault((picture.source.label, picture.source.folder), []).append(picture)
    return [picture for inside in folders.values() for picture in evenly(inside, per_folder)]


def robustness_point(
    name: str,
    scored: ScoredPictures,
    seen: Seen,
    deployed: Deployment | None,
    bootstrap: Bootstrap,
) -> RobustnessPoint:
    """The figures of one change; the thresholds stay as shipped."""
    table = family_table(scored, name, seen, bootstrap)
    if deployed is None:
        return RobustnessPoint(name, table, {}, ())
    default, caught, alarms = deployed.default, {}, []
    for band in points(default):
        shares = [
            threshold_rate(family, band, scored.of(1, family), deployed, default).value
            for family in table.mean_over
        ]
        caught[band] = float(np.mean(shares))
        alarms.append(threshold_rate(ALL_SOURCES, band, scored.of(0), deployed, default))
    return RobustnessPoint(name, table, caught, tuple(alarms))


def _notes(
    model: EvaluatedModel,
    pictures: Sequence[Picture],
    pairs: Sequence[Pair],
    config: EvaluationConfig,
) -> list[str]:
    notes = []
    if model.deployed is None:
        notes.append(
            "No thresholds: run `python -m trainer calibrate` first, and evaluate again. Without "
            "them there are no false alarms, no share caught and no reliability."
        )
    if not pairs:
        notes.append(
            "No content-matched pairs: set `evaluation.pairs.roots` to what `python -m trainer "
            "fakes` wrote. Without them the report cannot tell subject from forgery."
        )
    if not config.photo_like:
        notes.append("No photo-like generators are named: set `evaluation.photo_like`.")
    notes += missing_folders(pictures, config)
    if model.detector is None:
        notes.append("A bundle holds no noise head: attention maps need the run.")
    judged, _ = split_out_of_domain(pictures, config.out_of_domain)
    if few := too_few(judged):
        notes.append(f"No shortcut probes: {few}.")
    return notes


def missing_folders(pictures: Sequence[Picture], config: EvaluationConfig) -> list[str]:
    """What the configuration names and this split does not hold, in sentences."""
    held = {(picture.source.label, picture.source.folder) for picture in pictures}
    named = [(1, name) for name in config.photo_like] + [(0, name) for name in config.photographs]
    notes = []
    if missing := [name for label, name in named if (label, name) not in held]:
        notes.append(
            f"`evaluation.photo_like` and `evaluation.photographs` name {', '.join(missing)}, which "
            "this split does not hold."
        )
    reals = [folder for label, folder in held if label == 0]
    if unmatched := [
        pattern
        for pattern in config.out_of_domain
        if not any(matches(folder, (pattern,)) for folder in reals)
    ]:
        notes.append(
            f"`evaluation.out_of_domain` names {', '.join(unmatched)}, of which this split holds no "
            "real picture."
        )
    return notes
