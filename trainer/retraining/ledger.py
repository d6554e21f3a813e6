"""Which steps of a retraining are done: a record on disk, believed only where the files bear it out.

In: steps, in order, each with the files that it makes. Out: those files; ``retrain.json`` says of each
step what it was made of and what it left. Errors: ``RetrainError``, and whatever a step raises.

A step is done if its record was made of the same things (configuration, data, arguments, and what the
steps before it left) and every file that it left is still the same. Anything else is done again, and so
is all that follows. What must never be done again on other grounds, a training above all, says so.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trainer.errors import TrainerError

LEDGER = "retrain.json"


class RetrainError(TrainerError):
    """A retraining that cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: in a word; the record is kept under it.
        asked: what it depends on beside the steps before it.
        makes: the files, or whole directories, that it leaves.
        run: does it; may be asked again after it was cut off.
        repeats: whether it may be done again where ``asked`` has changed since.
    """

    name: str
    asked: Mapping[str, object]
    makes: tuple[Path, ...]
    run: Callable[[], None]
    repeats: bool = True


@dataclass(frozen=True)
class Done:
    """What became of a step."""

    name: str
    before: bool  # it was done already
    seconds: float


def carry_out(steps: Sequence[Step], output: Path, tell: Callable[[Done], None]) -> None:
    """Do every step that is not done, in order, and note each as it ends."""
    records = _read(output / LEDGER)
    left = ""  # a digest of everything that the steps before left
    for step in steps:
        asked = _digest({"asked": dict(step.asked), "before": left})
        record = records.get(step.name)
        if _stands(record, asked, step):
            tell(Done(step.name, before=True, seconds=0.0))
        else:
            _refuse_other(record, asked, step, output)
            started_s = time.monotonic()
            step.run()
            seconds = time.monotonic() - started_s
            records[step.name] = {
                "asked": asked,
                "left": _left(step),
                "seconds": round(seconds, 1),
                "done_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            _write(output / LEDGER, records)
            tell(Done(step.name, before=False, seconds=seconds))
        left = _digest({"before": left, "left": records[step.name]["left"]})


def _stands(record: Mapping[str, object] | None, asked: str, step: Step) -> bool:
    if record is None or record.get("asked") != asked:
        return False
    return record.get("left") == _left(step, missing_ok=True)


def _refuse_other(
    record: Mapping[str, object] | None, asked: str, step: Step, output: Path
) -> None:
    if record is not None and record.get("asked") != asked and not step.repeats:
        raise RetrainError(
            f"{output}: its step {step.name!r} was done with another configuration, other data or "
            "other arguments: name another --output, which starts anew"
        )


def _left(step: Step, *, missing_ok: bool = False) -> dict[str, str]:
    """The SHA-256 of every file that a step makes, by its name under the step's own."""
    found: dict[str, str] = {}
    for made in step.makes:
        if not made.exists():
            if missing_ok:
                return {}
            raise RetrainError(f"the step {step.name!r} ended without {made}: run it by itself")
        found |= _digests(made, made.parent)
    return found


def digest_of_directory(directory: Path) -> str:
    """One SHA-256 of every file's name and bytes; what the directory itself is called does not matter."""
    return _digest(_digests(directory, directory))


def _digests(made: Path, root: Path) -> dict[str, str]:
    files = sorted(made.rglob("*")) if made.is_dir() else [made]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, dict[str, object]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise RetrainError(f"{path} is not JSON ({error}): name another --output") from error
    if not isinstance(found, dict):
        raise RetrainError(f"{path} is no record of a retraining: name another --output")
    return found


def _write(path: Path, records: Mapping[str, object]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(records, indent=2) + "\n")
    partial.replace(path)
