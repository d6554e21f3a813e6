"""Files of results that one command leaves for the next.

In: a path, plain values. Out: the same, as JSON. Errors: ``CheckpointError``, which names the
command to run.
"""

import json
from pathlib import Path

from trainer.training.checkpoint import CheckpointError


def write_json(path: Path, content: object) -> None:
    """Write a file of results, whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def read_json(path: Path, command: str) -> dict[str, object]:
    """Read the results of an earlier command."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path} does not exist: run python -m trainer {command} first"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): run {command} again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no result of {command}: run it again")
    return content
