"""The model card: what a bundle is and is not, written from what was measured.

In: the configuration, the chosen weights, what evaluation and calibration measured. Out: Markdown.
No errors of its own. Only measured figures appear; the words around them come from the
configuration and from ``[export.card]``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from trainer.bundle.development import Development, development_section
from trainer.bundle.operating import MeasuredSet, alarms_table, points_table
from trainer.config import Config, SplitConfig
from trainer.evaluation.calibration import CalibrationError, Fit
from trainer.evaluation.families import CONDITIONS, Report
from trainer.training.checkpoint import Best
from trainer.training.initial_weights import STARTED_FROM, SeenGenerators, seen_generators
from trainer.training.mean_of_runs import averaged_in_words
from trainer.training.validation import unlearnt

_POOR_AUC = 0.8  # below it a family is named among the known failures
_POOR_FAKE_ACCURACY = 0.5


@dataclass(frozen=True)
class Measured:
    """What calibration found; ``calibrate.json``."""

    fit: Fit
    sets: tuple[MeasuredSet, ...]  # the default one first
    fitted_on: str

    def as_json(self) -> dict[str, object]:
        """Plain values, for a file."""
        return {
            "fit": asdict(self.fit),
            "sets": [one.as_json() for one in self.sets],
            "fitted_on": self.fitted_on,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "Measured":
        """Read what ``as_json`` wrote; ``CalibrationError`` for the file of an older release."""
        sets = content.get("sets")
        if not isinstance(sets, list):
            raise CalibrationError(
                "calibrate.json lists no threshold sets, an older release wrote it: run python -m "
                "trainer calibrate again, and evaluate after it"
            )
        return cls(
            fit=Fit(**content["fit"]),  # type: ignore[arg-type]  # as as_json wrote it
            sets=tuple(MeasuredSet.from_json(one) for one in sets),
            fitted_on=str(content["fitted_on"]),
        )


def model_card(
    config: Config,
    best: Best,
    lineage: Mapping[str, str],
    tested: Report,
    measured: Measured,
    findings: Sequence[str] = (),
    development: Development | None = None,
) -> str:
    """The text of MODEL_CARD.md.

    Args:
        config: of the run.
        best: the chosen weights.
        lineage: what they were made from.
        tested: the families of the test split.
        measured: the calibration and the thresholds.
        findings: what else evaluation found, a sentence each (``trainer.evaluation.findings``).
        development: the run that left out generators which this one knows.
    """
    parts = (
        f"# {config.export.name} {config.export.version}",
        config.export.card.summary,
        _what_it_is(config, best),
        development_section(development, _table(development.tested) if development else ()),
        _results(config, tested, seen_generators(lineage)),
        _findings(findings),
        _operating_points(measured),
        _failures(tested, measured, findings, development),
        _data(config),
        _lineage(config, best, lineage),
    )
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _what_it_is(config: Config, best: Best) -> str:
    learnt = (
        "no noise was learnt (loss.lambda_noise is 0): this is the plain backbone"
        if best.explained_variance is None
        else f"{best.explained_variance:.1%} of the variance of the teacher's noise is explained "
        "on held-out crops"
    )
    lines = [
        "## What it is",
        (
            f"- One image in, a score in [0, 1] out: how likely it is AI-generated. {config.export.crop_px} "
            f"px crops of native pixels ({config.export.crop_policy}, at most {config.export.max_crops})."
        ),
        (
            f"- `{config.detector.backbone}` {_method(config, best)}; gate `{config.export.gate}` in "
            f"the graph. Of the teacher: {learnt}."
        ),
        (
            "- A signal for a person or a policy to weigh. It is no proof, and no ground to block on "
            "alone."
        ),
    ]
    return "\n".join(lines)


def _method(config: Config, best: Best) -> str:
    if unlearnt(config, best):
        return "trained with a noise head that did not learn its target: not ANL (docs/concepts/anl.md)"
    return (
        "trained by ANL (docs/concepts/anl.md)" if config.loss.lambda_noise else "trained plainly"
    )


def _results(config: Config, tested: Report, known: SeenGenerators) -> str:
    seen = sorted({one.generator for one in tested.families if known.saw(one.generator)})
    unseen = (
        f"Training knew these generators by other files of theirs: {', '.join(seen)}. So the table "
        "shows that they were learnt, and not what becomes of new ones. None of these files, and none "
        "of these photographs' folders,"
        if seen
        else "None of these generators, and none of these photographs' folders,"
    )
    lines = [
        "## Results on the test split",
        (
            f"{unseen} took part in training, the choice of the epoch, calibration or the thresholds. "
            "Accuracy is of the raw logit at 0. *Aligned* puts both classes through one resize, crop and "
            "JPEG (quality 96)."
        ),
        "",
        *_table(tested),
        f"\n{config.export.card.shown}",
    ]
    return "\n".join(lines)


def _table(tested: Report) -> list[str]:
    lines = [
        "| generator | condition | fake | real | AUC | AP | acc | real acc | fake acc |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in tested.families:
        figures = (one.auc, one.ap, one.accuracy_at_half, one.real_accuracy, one.fake_accuracy)
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        lines.append(
            f"| {one.generator} | {one.condition} | {one.n_fake} | {one.n_real} | {cells} |"
        )
    lines.extend(
        f"\nMean AUC over the generators, {condition}: "
        f"**{tested.mean_auc[condition]:.3f}**; worst: "
        f"{tested.worst_generator[condition]}, {tested.worst_auc[condition]:.3f}."
        for condition in CONDITIONS
        if condition in tested.mean_auc
    )
    return lines


def _findings(findings: Sequence[str]) -> str:
    if not findings:
        return ""
    lines = [f"- {one}" for one in findings]
    how = "What each figure means: docs/concepts/evaluation.md. Brackets hold 95 % intervals."
    return "\n".join(["## Beyond single generators", how, "", *lines])


def _operating_points(measured: Measured) -> str:
    fitted = measured.fit
    lines = [
        "## Score and thresholds",
        (
            f"- {fitted.method} scaling, fitted on {fitted.n} images ({measured.fitted_on}), both classes "
            f"weighing the same: ECE {fitted.ece_before:.3f} -> {fitted.ece:.3f}, NLL "
            f"{fitted.nll_before:.3f} -> {fitted.nll:.3f}, measured on those very images."
        ),
    ]
    lines += [
        f"- Thresholds of {names}, set on {on}." for on, names in _sets_by_images(measured).items()
    ]
    lines.append(
        "- Brackets hold 95 % Wilson intervals of the share of those very images that reach a threshold: "
        "the rate on others will be higher or lower, and the interval does not cover other kinds of "
        "picture."
    )
    return "\n".join([*lines, "", points_table(measured.sets)])


def _sets_by_images(measured: Measured) -> dict[str, str]:
    """The names of the sets by what they were measured on."""
    found: dict[str, list[str]] = {}
    for one in measured.sets:
        found.setdefault(f"{one.review.n_real} real images ({one.measured_on})", []).append(
            one.name
        )
    return {on: ", ".join(names) for on, names in found.items()}


def _failures(
    tested: Report,
    measured: Measured,
    findings: Sequence[str],
    development: Development | None,
) -> str:
    lines = ["## SeenGenerators failures", *_weak(tested, "")]
    if development:
        lines += _weak(development.tested, ", by the run that had never seen them")
    unmeasured = "edited or partly generated images, video frames, adversarial inputs"
    if not findings:
        unmeasured = f"heavy recompression, screenshots, {unmeasured}"
    lines.append(f"- Not measured: {unmeasured}.")
    lines.append("- Real images at or above each threshold, of those it was set on, by source:")
    return "\n".join([*lines, "", alarms_table(measured.sets)])


def _weak(tested: Report, by: str) -> list[str]:
    poor = sorted({one.generator for one in tested.families if one.auc < _POOR_AUC})
    missed = sorted(
        {one.generator for one in tested.families if one.fake_accuracy < _POOR_FAKE_ACCURACY}
    )
    lines = []
    if poor:
        lines.append(
            f"- Poorly told from real images{by} (AUC below {_POOR_AUC}): {', '.join(poor)}."
        )
    if missed:
        lines.append(f"- Most images missed at the raw logit 0{by}: {', '.join(missed)}.")
    return lines


def _data(config: Config) -> str:
    lines = ["## Data", config.export.card.data, ""]
    splits = config.data.splits
    for name in ("train", "validation", "calibration", "threshold", "test"):
        split: SplitConfig = getattr(splits, name)
        lines.append(
            f"- {name}: real {', '.join(split.real) or 'none'}; fake {', '.join(split.fake) or 'none'}"
        )
    return "\n".join(lines)


def _lineage(config: Config, best: Best, lineage: Mapping[str, str]) -> str:
    lines = [
        "## Lineage",
        f"- code {lineage['code_commit']}, seed {config.seed}, step {best.step}",
        f"- teacher {lineage['teacher_id']}",
        f"- data digest {lineage['data_digest']}",
        "- every option of the run is in manifest.json, under lineage.config",
    ]
    averaged = averaged_in_words(lineage)
    if averaged:
        lines.insert(2, f"- {averaged}")
    if STARTED_FROM in lineage:
        lines.insert(2, f"- its first weights were {_start_in_words(lineage[STARTED_FROM])}")
    return "\n".join(lines)


def _start_in_words(origin: str) -> str:
    of_a_run = origin.startswith("sha256:")
    return f"another run's: best.pt {origin}" if of_a_run else f"those of the {origin}"
