"""Everything that an evaluation finds, as values, and the one function that finds it.

In: a ``Judged``, the pictures of a split, pairs, the configuration. Out: ``Evidence``. Errors: those
of the parts. What cannot be measured (no thresholds yet, no pairs) is named in ``notes``, never
left out in silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.bundle.manifest import ThresholdSet
from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation import apart as kinds
from trainer.evaluation import pairs as pair_tables
from trainer.evaluation.changes import change
from trainer.evaluation.families import CONDITIONS, Report, Scored, family_results, report, score
from trainer.evaluation.judged import Judged, Subject
from trainer.evaluation.metrics import Bootstrap, Table, table
from trainer.evaluation.pairs import PairTable, pair_table
from trainer.evaluation.photo_like import absent, chosen, size_change
from trainer.evaluation.probes import Probe, probe_all, void
from trainer.evaluation.rates import Rate, rates
from trainer.evaluation.reliability import Reliability, reliability
from trainer.evaluation.robustness import Point, point, thinned

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What the evaluated images were."""

    split: str
    n_real: int
    n_fake: int
    sha256: str  # of the names and digests of all of them, those that stand apart included
    n_apart: int = 0  # real pictures of other kinds, not among n_real


@dataclass(frozen=True)
class Evidence:
    """The findings, in the order of the report."""

    subject: Subject
    measured: Measured
    summary: Report
    scored: dict[str, Scored]  # by condition
    families: tuple[Table, ...]
    photo_like: tuple[Table, ...]
    pairs: tuple[PairTable, ...]
    threshold_sets: tuple[
        ThresholdSet, ...
    ]  # shipped, the default one first; none before calibrate
    alarms: tuple[Rate, ...]
    caught: tuple[Rate, ...]
    apart: tuple[Rate, ...]  # real pictures of other kinds, which no other figure counts
    robustness: tuple[Point, ...]
    reliability: Reliability | None
    probes: tuple[Probe, ...]
    probe_limit: float
    notes: tuple[str, ...]

    @property
    def void(self) -> list[Probe]:
        """The shortcuts that make the figures worthless; none where all is well."""
        return void(self.probes, self.probe_limit)


def gather(
    judged: Judged,
    pictures: Sequence[Picture],
    pairs: Sequence[Pair],
    measured: Measured,
    config: EvaluationConfig,
    notify: Notify,
) -> Evidence:
    """Measure everything; each part is told before it begins."""
    bootstrap = Bootstrap(config.resamples, config.seed)
    saw, shipped = judged.subject.saw, judged.shipped
    notes = _notes(judged, pictures, pairs, config)
    pictures, apart = kinds.set_apart(pictures, config.apart)
    notify(f"scoring {len(pictures)} pictures, native and aligned")
    scored: dict[str, Scored] = {
        condition: score(judged.infer, pictures, judged.spec, condition) for condition in CONDITIONS
    }
    families = tuple(table(one, name, saw, bootstrap) for name, one in scored.items())
    results = [
        one for condition in CONDITIONS for one in family_results(scored[condition], condition)
    ]
    native = scored["native"]
    return Evidence(
        subject=judged.subject,
        measured=measured,
        summary=report(results),
        scored=scored,
        families=families,
        photo_like=_photo_like(judged, native, config, notify),
        pairs=_pairs(judged, pairs, bootstrap, notify),
        threshold_sets=shipped.sets if shipped else (),
        alarms=rates(native, 0, shipped) if shipped else (),
        caught=rates(native, 1, shipped) if shipped else (),
        apart=_apart(judged, apart, notify),
        robustness=_robustness(judged, native, config, notify),
        reliability=reliability(native, shipped) if shipped else None,
        probes=probe_all(pictures, judged.spec),
        probe_limit=config.probe_limit,
        notes=tuple(notes),
    )


def _photo_like(
    judged: Judged, native: Scored, config: EvaluationConfig, notify: Notify
) -> tuple[Table, ...]:
    inside = chosen(native.pictures, config)
    if not inside:
        return ()
    notify(f"photo-like pictures beside photographs: {len(inside)}, at two sizes")
    bootstrap = Bootstrap(config.resamples, config.seed)
    size = size_change(config)
    resized = score(judged.infer, inside, judged.spec, "native", change(size))
    return tuple(
        table(judgement, name, judged.subject.saw, bootstrap)
        for name, judgement in (("native", native.within(inside)), (size, resized))
    )


def _apart(judged: Judged, apart: Sequence[Picture], notify: Notify) -> tuple[Rate, ...]:
    if not apart or judged.shipped is None:
        return ()
    notify(f"{len(apart)} real pictures of other kinds")
    return rates(score(judged.infer, apart, judged.spec, "native"), 0, judged.shipped)


def _pairs(
    judged: Judged, pairs: Sequence[Pair], bootstrap: Bootstrap, notify: Notify
) -> tuple[PairTable, ...]:
    if not pairs:
        return ()
    notify(f"{len(pairs)} pairs of photographs and their regenerations")
    return tuple(
        pair_table(judged.infer, pairs, judged.spec, name, judged.subject.saw_pairs, bootstrap)
        for name in pair_tables.CONDITIONS
    )


def _robustness(
    judged: Judged, native: Scored, config: EvaluationConfig, notify: Notify
) -> tuple[Point, ...]:
    inside = thinned(native.pictures, config.robustness_per_folder)
    bootstrap = Bootstrap(config.resamples, config.seed)

    def judge(name: str, scored: Scored) -> Point:
        return point(name, scored, judged.subject.saw, judged.shipped, bootstrap)

    points = [judge("native", native.within(inside))]
    for name in config.changes:
        notify(f"robustness: {name}, {len(inside)} pictures")
        changed = score(judged.infer, inside, judged.spec, "native", change(name))
        points.append(judge(name, changed))
    return tuple(points)


def _notes(
    judged: Judged, pictures: Sequence[Picture], pairs: Sequence[Pair], config: EvaluationConfig
) -> list[str]:
    notes = []
    if judged.shipped is None:
        notes.append(
            "No thresholds: run `python -m trainer calibrate` first, and evaluate again. Without "
            "them no false alarms, no share caught and no reliability can be given."
        )
    if not pairs:
        notes.append(
            "No content-matched pairs: set `evaluation.pairs.roots` to what `python -m trainer "
            "fakes` wrote. Whether subject or forgery was learnt is not shown here."
        )
    if not config.photo_like:
        notes.append("No photo-like generators are named: set `evaluation.photo_like`.")
    if missing := absent(pictures, config):
        notes.append(
            f"`evaluation.photo_like` and `evaluation.photographs` name {', '.join(missing)}, which "
            "this split does not hold."
        )
    if missing := kinds.absent(pictures, config.apart):
        notes.append(
            f"`evaluation.apart` names {', '.join(missing)}, of which this split holds no real picture."
        )
    if judged.detector is None:
        notes.append("A bundle holds no noise head: attention maps need the run.")
    return notes
