"""Checks of data and configuration before training.

``data check`` reports every row; ``train`` runs the quick ones first. An error is something that
training, ``calibrate``, ``evaluate`` or ``export`` would refuse later; a warning is something that
the model card will mention. A split without images is a warning: it can be added after training.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from engines.preprocess import ImageError
from trainer.config import Config
from trainer.data.dataset import Dataset, Picture, check_near, load
from trainer.data.files import Source
from trainer.data.pairs import photographs_of
from trainer.errors import DataError, TrainerError
from trainer.evaluation.calibration import unsupported_rates
from trainer.evaluation.probes import probe_all, too_few, void
from trainer.evaluation.scoring import split_out_of_domain
from trainer.teachers.opening import network_settings
from trainer.training.checkpoint import anl_doubts

Status = Literal["ok", "warning", "error"]
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}
_MIB = 2**20
_LEAST_TO_FIT = 2  # images of each class that `calibrate` needs
_FLOAT_BYTES = 4
# What cannot be done while a split is empty.
_NEEDED_BY = {
    "validation": "choose a step by its AUC",
    "calibration": "calibrate scores",
    "threshold": "set thresholds",
    "test": "evaluate, and so export",
}


@dataclass(frozen=True)
class CheckRow:
    """A row of the report."""

    topic: str
    status: Status
    result: str
    advice: str = ""  # what to do; empty where all is well

    @property
    def text(self) -> str:
        """The row as a line."""
        return f"{self.topic}: {self.result}" + (f": {self.advice}" if self.advice else "")


def quick_checks(config: Config, dataset: Dataset) -> list[CheckRow]:
    """Check what file names, numbers and options decide, without decoding a picture.

    Args:
        config: of the run.
        dataset: the result of ``scan``.

    Returns:
        The rows, of any status.
    """
    rows = [_split_row(split, dataset) for split in dataset.splits]
    rows += [CheckRow("shared", "ok", note) for note in dataset.notes]
    if dataset.duplicates:
        rows.append(CheckRow("duplicates", "ok", f"{dataset.duplicates} equal files are used once"))
    n_real = Counter(file.folder for file in dataset.splits["threshold"] if file.label == 0)
    if n_real:
        problems = unsupported_rates(n_real, config.export.rates(), config.evaluation.out_of_domain)
        rows += [_problem("thresholds", "error", problem) for problem in problems]
        if not problems:
            rows.append(CheckRow("thresholds", "ok", "enough real images for every rate"))
    if config.data.pairs:
        rows.append(_pairs_row(config, dataset))
    rows += _anl_rows(config, dataset)
    return [*rows, *_files_rows(config), *_cost_rows(config, dataset)]


def full_checks(config: Config, dataset: Dataset, cache: Path) -> list[CheckRow]:
    """Check everything: decode every picture, compare splits, and probe the test split for shortcuts.

    Args:
        config: of the run.
        dataset: the result of ``scan``.
        cache: for perceptual hashes.
    """
    rows = quick_checks(config, dataset)
    rows += [
        _problem("near copies", "warning", f"{line}: look at them, and exclude one of each")
        for line in check_near(dataset, cache, strict=False)
    ]
    corrupt: list[str] = []

    def on_skip(source: Source, error: ImageError) -> None:
        corrupt.append(f"{source.key} ({error})")

    for split, sources in dataset.splits.items():
        if split != "test":
            load(sources, strict=False, region_px=1, on_skip=on_skip)
    pictures = load(dataset.splits["test"], strict=False, region_px=None, on_skip=on_skip)
    if corrupt:
        result = f"{len(corrupt)} images cannot be decoded, the first is {corrupt[0]}"
        rows.append(CheckRow("corrupt files", "warning", result, "remove or restore them"))
    else:
        rows.append(CheckRow("corrupt files", "ok", "every image can be decoded"))
    return rows + _shortcut_rows(config, pictures)


def refuse_errors(rows: Iterable[CheckRow], *, strict: bool) -> None:
    """Raise ``DataError`` for errors and, if ``strict``, for warnings."""
    errors = [row.text for row in strictly(rows, strict=strict) if row.status == "error"]
    if errors:
        raise DataError("this run would be refused later; " + "; ".join(errors))


def strictly(rows: Iterable[CheckRow], *, strict: bool) -> list[CheckRow]:
    """Turn warnings into errors where ``strict``."""
    return [
        replace(row, status="error") if strict and row.status == "warning" else row for row in rows
    ]


def table_of(rows: Iterable[CheckRow]) -> Table:
    """Show the rows; fits into 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("check", width=13)
    table.add_column("", width=7)
    table.add_column("result", ratio=1, overflow="fold")
    table.add_column("what to do", ratio=1, overflow="fold")
    for row in rows:
        status = f"[{_STYLES[row.status]}]{row.status}[/]"
        table.add_row(row.topic, status, escape(row.result), escape(row.advice))
    return table


def _problem(topic: str, status: Status, sentence: str) -> CheckRow:
    """A sentence of another module: what is wrong, a colon, and what to do."""
    result, _, advice = sentence.rpartition(": ")
    return CheckRow(topic, status, result, advice)


def _split_row(split: str, dataset: Dataset) -> CheckRow:
    fake = sum(file.label for file in dataset.splits[split])
    real = len(dataset.splits[split]) - fake
    result = f"{real} real, {fake} fake"
    add = f"add folders to data.splits.{split}, or rows to data.manifest"
    if split == "train":  # `scan` refuses it without one of the classes
        return CheckRow(split, "ok", result)
    if not real and not fake:
        return CheckRow(split, "warning", f"no images, so nothing can {_NEEDED_BY[split]}", add)
    if split == "threshold":
        status: Status = "ok" if real else "error"
        return CheckRow(split, status, result, "" if real else f"real images are needed: {add}")
    least = _LEAST_TO_FIT if split == "calibration" else 1
    if min(real, fake) >= least:
        return CheckRow(split, "ok", result)
    status = "warning" if split == "validation" else "error"
    return CheckRow(split, status, result, f"{least} of each class are needed: {add}")


def _pairs_row(config: Config, dataset: Dataset) -> CheckRow:
    counts = {split: len(photographs_of(files)) for split, files in dataset.pairs.items() if files}
    result = ", ".join(f"{count} photographs in {split}" for split, count in counts.items())
    if config.train.validate_pairs and not counts.get("validation"):
        result += "; train.validate_pairs needs some in validation"
        advice = "make them (python -m trainer fakes), or leave the option out"
        return CheckRow("pairs", "error", result, advice)
    if dataset.homeless_photographs:
        result += f"; {dataset.homeless_photographs} in no split, which are not used"
    return CheckRow("pairs", "ok", result)


def _anl_rows(config: Config, dataset: Dataset) -> list[CheckRow]:
    status: Status = "error" if config.export.strict else "warning"
    doubts = anl_doubts(config, len(dataset.splits["validation"]))
    return [_problem("ANL", status, doubt) for doubt in doubts]


def _files_rows(config: Config) -> list[CheckRow]:
    """The teacher, and the weights that a run starts from."""
    rows = []
    if config.loss.lambda_noise > 0 and config.teacher.source:
        try:
            network_settings(config.teacher.source)
            rows.append(CheckRow("teacher", "ok", f"found: {config.teacher.source}"))
        except TrainerError as error:
            rows.append(_problem("teacher", "error", str(error)))
    start = config.train.start_from
    if start and not Path(start).is_dir():
        advice = "name a run's folder or a bundle in train.start_from"
        rows.append(CheckRow("start_from", "error", f"{start} is not a directory", advice))
    return rows


def _cost_rows(config: Config, dataset: Dataset) -> list[CheckRow]:
    """At most how much memory and disk training takes."""
    memory_bytes = len(dataset.splits["train"]) * config.data.region_px**2 * 3
    rows = [CheckRow("memory", "ok", f"pictures take at most {_mib(memory_bytes)}")]
    crops = round(config.train.batch // 2 * config.teacher.share) * 2
    steps = config.teacher.repeat_steps or config.train.steps
    if config.loss.lambda_noise > 0 and crops and steps and not config.teacher.repeat_epochs:
        steps = min(steps, config.train.steps or steps)
        disk_bytes = crops * steps * config.window_px**2 * 3 * _FLOAT_BYTES
        result = (
            f"the teacher computes {crops * steps} crops, at most {_mib(disk_bytes)} in --cache"
        )
        rows.append(CheckRow("noise targets", "ok", result))
    return rows


def _mib(size_bytes: int) -> str:
    return f"{max(1, round(size_bytes / _MIB))} MiB"


def _shortcut_rows(config: Config, pictures: Sequence[Picture]) -> list[CheckRow]:
    """Whether file size, format or the like give the class of the test split away."""
    if {picture.source.label for picture in pictures} != {0, 1}:
        return []
    compared, _ = split_out_of_domain(pictures, config.evaluation.out_of_domain)
    few = too_few(compared)
    if few:
        return [_problem("shortcuts", "warning", few)]
    probes = probe_all(compared, config.export.preprocess)
    strict = config.evaluation.strict or config.export.strict
    status: Status = "error" if strict else "warning"
    rows = [
        CheckRow(
            "shortcuts",
            status,
            f"{probe.shortcut} alone tells the classes of the test split apart (balanced accuracy "
            f"{probe.balanced_accuracy:.2f} after a common JPEG): the evaluation will be VOID",
            "test on content-matched pairs, or on classes of one kind of source",
        )
        for probe in void(probes, config.evaluation.probe_limit)
    ]
    return rows or [CheckRow("shortcuts", "ok", "none gives the class away")]


def report(rows: Sequence[CheckRow], notify: Callable[[str], None]) -> None:
    """Print the warnings, one per line."""
    for row in rows:
        if row.status == "warning":
            notify(f"warning: {row.text}")
