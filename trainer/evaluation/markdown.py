"""The text of a report. Every figure of it stands in report.json too, with n and interval.

In: evidence, the names of plots. Out: Markdown. No errors.
"""

from collections.abc import Mapping, Sequence

from engines.bundle.manifest import GeneratorMetric
from trainer.evaluation.evidence import Evidence
from trainer.evaluation.grids import grid, image
from trainer.evaluation.rate_sections import alarms, apart, probes, robustness, scores
from trainer.evaluation.sections import card_check, families, pairs, photo_like

_UNLEARNT = 0.3  # of the noise's variance: below it, a run does not count as ANL


def first_line(evidence: Evidence) -> str:
    """The verdict on the evaluation itself, before anything else."""
    subject, split = evidence.subject, evidence.measured.split
    if evidence.void:
        worst = max(evidence.void, key=lambda one: one.balanced_accuracy)
        return (
            f"# VOID: {worst.shortcut} alone tells the aligned classes apart with a balanced "
            f"accuracy of {worst.balanced_accuracy:.3f}, over {evidence.probe_limit:g}"
        )
    return f"# Evaluation of {subject.name} on the {split} split"


def markdown(evidence: Evidence, card: Sequence[GeneratorMetric], plots: Mapping[str, str]) -> str:
    """The whole report."""
    parts = [
        first_line(evidence),
        _void(evidence),
        _subject(evidence),
        _notes(evidence),
        families(evidence, plots.get("roc")),
        card_check(evidence, card),
        photo_like(evidence),
        pairs(evidence),
        alarms(evidence),
        apart(evidence),
        robustness(evidence, plots.get("robustness")),
        scores(evidence, plots),
        probes(evidence),
        _attention(plots.get("attention")),
        _how(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _void(evidence: Evidence) -> str:
    if not evidence.void:
        return ""
    found = "; ".join(f"{one.shortcut} {one.balanced_accuracy:.3f}" for one in evidence.void)
    return (
        f"**The figures below say nothing of forgery.** On this split the classes differ in what a "
        f"file tells before anybody looks at the picture, even once both were aligned ({found}). "
        "Evaluate on a split whose classes share sizes, sources and content: pairs first of all."
    )


def _subject(evidence: Evidence) -> str:
    subject, measured = evidence.subject, evidence.measured
    if subject.explained_variance is None:
        learnt = "none was learnt: this is the plain backbone"
    else:
        learnt = f"{subject.explained_variance:.1%} of its variance, on held-out crops"
        if subject.explained_variance < _UNLEARNT:
            learnt += f" (**under {_UNLEARNT:.0%}: this does not count as ANL**)"
    return grid(
        ("what", "value"),
        [
            (f"{subject.kind}", f"{subject.name}, sha256 `{subject.sha256[:16]}`"),
            ("trained by commit", f"`{subject.code_commit[:12]}`"),
            ("training data", f"`{subject.training_data_digest[:16]}`"),
            ("teacher", f"`{subject.teacher_id}`"),
            ("the teacher's noise explained", learnt),
            (
                "evaluated on",
                (
                    f"{measured.split}: {measured.n_real} real, {measured.n_fake} generated, "
                    f"{measured.n_apart} real of other kinds, digest `{measured.sha256[:16]}`"
                ),
            ),
        ],
    )


def _notes(evidence: Evidence) -> str:
    if not evidence.notes:
        return ""
    return "\n".join(["## What is not measured here", "", *(f"- {one}" for one in evidence.notes)])


def _attention(plot: str | None) -> str:
    if plot is None:
        return ""
    return "\n".join(
        [
            "## Where the student finds noise",
            "",
            (
                "The magnitude of the predicted noise over central crops. **This plot shows pictures of "
                "the evaluated set**: look at their terms, and at who is in them, before you pass this "
                "folder on."
            ),
            *image(plot, "Attention maps"),
        ]
    )


def _how() -> str:
    return (
        "How each figure is computed, and what it can and cannot show: `docs/concepts/evaluation.md`. The "
        "logits of every image are in `logits.json`, so that two detectors can be compared on the "
        "same images."
    )
