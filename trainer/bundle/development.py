"""The run that says what its successor cannot: how it does on generators that it never saw.

In: the folder of a run that was evaluated, and the configuration of the one that is exported. Out:
a section of the model card. Errors: ``ExportError`` where that run was not evaluated, or knew the
generators itself; those of its checkpoint.

A bundle that is trained on every generator at hand has none left to be judged by. What stands for
it is a run by the same recipe that left some out. The card names every option in which they differ.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config import Config
from trainer.errors import ExportError
from trainer.evaluation.families import Report, report_from_json
from trainer.training import checkpoint
from trainer.training.checkpoint import read_json, refuse_other_settings
from trainer.training.initial_weights import SeenGenerators, seen_generators
from trainer.training.mean_of_runs import averaged_in_words

EVALUATION = "evaluate-test.json"
_NOT_THE_RECIPE = ("evaluation.", "export.", "data.splits.")  # what the two are there to differ in


@dataclass(frozen=True)
class Development:
    """A run that left generators out, and what evaluation found of it."""

    digest: str  # SHA-256 of its best.pt
    step: int
    tested: Report
    findings: tuple[str, ...]
    averaged: str  # of which runs its weights are the mean; empty where they are its own
    differences: tuple[str, ...]  # options, each with both values


def read_development(config: Config) -> Development | None:
    """Read ``export.development``; None where it is not set."""
    if not config.export.development:
        return None
    folder = Path(config.export.development)
    best, lineage = checkpoint.read_best(folder)
    before = Config.model_validate_json(lineage["config"])
    evaluated = read_json(folder / EVALUATION, "evaluate")
    again = f"run python -m trainer evaluate of {folder} again, with the crops of this one"
    refuse_other_settings(evaluated, config, folder / EVALUATION, (), again)
    found = Development(
        digest=hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest(),
        step=best.step,
        tested=report_from_json(evaluated, folder / EVALUATION),
        findings=findings_of(evaluated),
        averaged=averaged_in_words(lineage),
        differences=tuple(_differences(before, config)),
    )
    _refuse_seen(found, seen_generators(lineage), folder)
    return found


def findings_of(evaluated: Mapping[str, object]) -> tuple[str, ...]:
    """The sentences that evaluate wrote for the card; none in a file of an older release."""
    found = evaluated.get("findings", [])
    return tuple(str(one) for one in found) if isinstance(found, list) else ()


def development_section(found: Development | None, table: Sequence[str]) -> str:
    """What the card says of it.

    Args:
        found: the run; None gives no section.
        table: the lines of its families' table.
    """
    if found is None:
        return ""
    lines = [
        "## Generators that training never saw",
        (
            "This bundle was trained on every generator at hand, so none is left that could tell how it "
            "does on a new one. A run by the same recipe tells it, which left these out of training, the "
            f"choice of the step, calibration and thresholds (best.pt sha256:{found.digest}, step "
            f"{found.step}{_of(found.averaged)}):"
        ),
        "",
        *table,
        "",
        *(f"- {one}" for one in found.findings),
        "",
        "Where the two runs differ, beside their data: "
        + ("; ".join(found.differences) if found.differences else "nowhere")
        + ".",
    ]
    return "\n".join(lines)


def _of(averaged: str) -> str:
    return f"; {averaged}" if averaged else ""


def _refuse_seen(found: Development, known: SeenGenerators, folder: Path) -> None:
    seen = sorted({one.generator for one in found.tested.families if known.saw(one.generator)})
    if seen:
        raise ExportError(
            f"the run in {folder} was trained on {', '.join(seen)}, which its own test split judges: "
            "export.development needs a run that leaves its test generators out of training"
        )


def _differences(before: Config, now: Config) -> list[str]:
    first, second = checkpoint.flat_config(before), checkpoint.flat_config(now)
    return [
        f"`{key}` {_told(first.get(key))} there, {_told(second.get(key))} here"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key) and not key.startswith(_NOT_THE_RECIPE)
    ]


def _told(value: object) -> str:
    return str(value) if value not in {None, ""} else "unset"
