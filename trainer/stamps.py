"""Steps of a job that are done once: each is stamped with the digest of its inputs and of its outputs.

In: steps, in order. Out: the files that they make, and a JSON file of stamps. Errors: ``StampError``, and
whatever a step raises.

A step is skipped if its stamp has the same inputs (configuration, data, arguments, the bytes of the files
it reads) and every file that it made is unchanged. Else it runs again. A step that must never run over its
own result, a training above all, says so.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines.bundle.manifest import SIGNATURES_FILE
from trainer.errors import TrainerError
from trainer.progress import in_words
from trainer.training.checkpoint import write_json


class StampError(TrainerError):
    """A job that cannot continue; the message says what to do."""


@dataclass(frozen=True)
class Step:
    """One step of a job.

    Attributes:
        name: in a word; its stamp is kept under it.
        inputs: plain values that it depends on.
        reads: files and directories that it depends on.
        makes: files and directories that it makes.
        run: does the step; may be called again after a kill.
        repeats: whether it may run again where its inputs have changed since.
    """

    name: str
    inputs: Mapping[str, object]
    reads: tuple[Path, ...]
    makes: tuple[Path, ...]
    run: Callable[[], None]
    repeats: bool = True


def run_steps(steps: Sequence[Step], stamps_file: Path, notify: Callable[[str], None]) -> None:
    """Run every step that is not done, in order, and stamp each as it ends.

    Raises:
        StampError: a step that must not repeat has other inputs, or a step did not make its files.
    """
    stamps = read_stamps(stamps_file)
    for step in steps:
        inputs = digest_of({"inputs": dict(step.inputs), "reads": digests(step.reads)})
        stamp = stamps.get(step.name, {})
        if stamp.get("inputs") == inputs and stamp.get("made") == digests(step.makes):
            notify(f"[bold]{step.name}[/]: done before")
            continue
        if stamp and stamp.get("inputs") != inputs and not step.repeats:
            raise StampError(
                f"{stamps_file.parent}: its step {step.name!r} was done with another configuration, other "
                "data or other arguments: name another --output, which starts anew"
            )
        started_s = time.monotonic()
        step.run()
        seconds = time.monotonic() - started_s
        missing = [str(path) for path in step.makes if not path.exists()]
        if missing:
            raise StampError(
                f"the step {step.name!r} did not make {', '.join(missing)}: report this"
            )
        stamps[step.name] = {
            "inputs": inputs,
            "made": digests(step.makes),
            "seconds": round(seconds, 1),
            "done_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(stamps_file, stamps)
        notify(f"[bold]{step.name}[/]: done in {in_words(seconds)}")


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of every file, by the number of its path and its name there; a missing file is left out.

    A directory's signatures are left out: they are added to a bundle later, and change nothing in it.
    """
    digests = {}
    for number, path in enumerate(paths):
        files = [path]
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.name != SIGNATURES_FILE]
        for file in files:
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                digests[f"{number}/{file.relative_to(path)}"] = digest
    return digests


def digest_of(content: object) -> str:
    """One SHA-256 of plain values."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_stamps(path: Path) -> dict[str, dict[str, object]]:
    """The stamps of a job; empty where it has not begun."""
    if not path.exists():
        return {}
    try:
        stamps = json.loads(path.read_bytes())
    except ValueError as error:
        raise StampError(f"{path} is not JSON ({error}): name another --output") from error
    if not isinstance(stamps, dict):
        raise StampError(f"{path} does not hold the stamps of a job: name another --output")
    return stamps
