"""The trainings of a study: the configuration of each, and how they are run.

A cell is a variant without a fold's generators, with a seed. Its folder holds ``config.toml``, what
``train`` and ``evaluate`` write, and their output in ``cell.log``. A cell with a finished evaluation
of the same configuration is not run again; a training that was interrupted continues.
"""

import copy
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from trainer.config import Changes, RowConfig, StudyConfig, parse_config
from trainer.errors import ConfigError

EVALUATION, RUN, LAST = "evaluate-test.json", "run.json", "last.pt"
Tree = dict[str, object]
Command = Callable[[Sequence[str], Path], int]  # arguments of the trainer, its log -> exit status


@dataclass(frozen=True)
class Cell:
    """One training of the study, and the text of its configuration."""

    variant: str
    fold: str  # its generators, joined by +; empty where the study has no folds
    seed: int
    config: str
    folder: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return "/".join(part for part in (self.variant, self.fold, f"seed{self.seed}") if part)

    @property
    def done(self) -> bool:
        """Whether the folder holds the evaluation of this very configuration."""
        return (self.folder / EVALUATION).exists() and self.written == self.config

    @property
    def written(self) -> str | None:
        """The configuration that the folder was made by."""
        path = self.folder / "config.toml"
        return path.read_text() if path.exists() else None


def plan(
    study: StudyConfig,
    rows: Sequence[RowConfig],
    data: Changes,
    output: Path,
    environment: Mapping[str, str],
) -> list[Cell]:
    """The cells of some rows, each once: all variants of a fold and seed follow each other.

    Args:
        study: the whole study.
        rows: the rows to plan.
        data: changes of the base configuration that hold for every cell, by dotted name.
        output: the study's folder.
        environment: what ``${NAME}`` in a configuration refers to.

    Raises:
        ConfigError: the configuration of a cell is not valid.
    """
    try:
        # A cell's configuration lies elsewhere, and its files are still those beside the base.
        beside = study.base.resolve().parent.as_posix()
        base = tomllib.loads(study.base.read_text().replace("${CONFIG_FOLDER}", beside))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{study.base} is not a readable TOML file: {error}") from error
    cells: dict[str, Cell] = {}
    for row, seed, fold in product(rows, study.seeds, study.folds or ((),)):
        for variant in (row.baseline, *row.variants):
            changes = {"seed": seed, **data, **study.variants[variant]}
            text, name = _as_toml(_changed(base, changes, fold)), "+".join(fold)
            folder = output / "cells" / variant / name / f"seed{seed}"
            cell = Cell(variant, name, seed, text, folder)
            parse_config(text.encode(), environment, f"the configuration of {cell.name}")
            cells.setdefault(cell.name, cell)
    return list(cells.values())


def run_cells(
    cells: Sequence[Cell], cache: Path, jobs: int, notify: Callable[[str], None]
) -> dict[str, str]:
    """Run the cells that are not done, some at a time.

    Returns:
        The error of each cell that failed, by its name; the others are done.
    """
    waiting = [cell for cell in cells if not cell.done]
    notify(f"{len(cells)} cells, {len(cells) - len(waiting)} done before")
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            errors = pool.map(partial(run_cell, cache=cache, command=_in_process), waiting)
            for count, (cell, error) in enumerate(zip(waiting, errors, strict=True), start=1):
                notify(f"{count} of {len(waiting)}: {cell.name} {error or 'done'}")
                if error:
                    failures[cell.name] = error
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def run_cell(cell: Cell, cache: Path, command: Command) -> str:
    """Train and evaluate a cell.

    Returns:
        The error, or an empty text.
    """
    folder = cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    if cell.written != cell.config:
        for name in (EVALUATION, RUN, LAST):
            (folder / name).unlink(missing_ok=True)
    (folder / "config.toml").write_text(cell.config)
    paths = {"config": folder / "config.toml", "output": folder, "cache": cache}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    resume = ["--resume"] if (folder / LAST).exists() else []
    log = folder / "cell.log"
    if not (folder / RUN).exists() and (status := command(["train", *options, *resume], log)):
        return _failure(status, log)
    if status := command(["evaluate", *options, "--split", "test"], log):
        return _failure(status, log)
    (folder / LAST).unlink(missing_ok=True)  # the largest file; best.pt stays
    return ""


def _in_process(arguments: Sequence[str], log: Path) -> int:
    with log.open("ab") as file:
        return subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "trainer", *arguments], stdout=file, stderr=file, check=False
        ).returncode


def _failure(status: int, log: Path) -> str:
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    reason = errors[-1].removeprefix("error: ") if errors and status == 1 else f"status {status}"
    return f"failed: {reason} (see {log})"


def _changed(base: Tree, changes: Changes, fold: Sequence[str]) -> Tree:
    tree = copy.deepcopy(base)
    for name, value in changes.items():
        *path, last = name.split(".")
        table = tree
        for part in path:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name!r} is not an option: {part!r} is not a table")
            table = inner
        table[last] = value
    if fold:
        _hold_out(tree["data"], fold)  # type: ignore[arg-type]  # validated with the cell
    return tree


def _hold_out(data: Tree, fold: Sequence[str]) -> None:
    """Make a fold's generators the fakes of the test split, whatever else divides the data."""
    splits: dict[str, dict[str, list[str]]] = data["splits"]  # type: ignore[assignment]  # the same
    for generator in fold:
        if generator not in splits["train"].get("fake", []):
            raise ConfigError(
                f"folds: {generator!r} is not in data.splits.train.fake of the base configuration"
            )
    splits["test"]["fake"] = []
    data["hold_out"] = list(fold)


def _as_toml(tree: Tree) -> str:
    return "".join(f"{json.dumps(key)} = {_inline(value)}\n" for key, value in tree.items())


def _inline(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
