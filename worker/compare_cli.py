"""``python -m worker compare``: how a shadow or a canary differs from the engine in place.

In: the verdict topics, or files of verdicts, one in JSON a line. Out: tables for people, or one JSON object.
Errors: :class:`Fatal`, which says what to do.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kafka.errors import KafkaError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.compare import Comparison, Spread, Summary, Told, compare, read_verdict
from worker.errors import Fatal
from worker.read_topic import read_topic
from worker.settings import KafkaSettings, Settings

Add = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


def add_compare(add: Add) -> None:
    """Add the command to the parser."""
    parser = add("compare", _run, "how the shadow's (or the canary's) verdicts differ")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE",
        help="verdicts, one in JSON a line (default: read from the topics)",
    )  # fmt: skip
    parser.add_argument("--mode", choices=("shadow", "canary"), default="shadow")
    parser.add_argument("--version-only", metavar="VERSION", help="only this one of the other side")
    parser.add_argument("--examples", type=int, default=10, help="of the largest differences")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _run(settings: Settings, options: argparse.Namespace) -> int:
    if options.examples < 0:
        raise Fatal(f"--examples {options.examples} is no number of examples: give 0 or more")
    verdicts = (
        _from_files(options.files)
        if options.files
        else _from_topics(settings.kafka, shadow=options.mode == "shadow")
    )
    found = compare(verdicts, options.mode, version=options.version_only, examples=options.examples)
    for side, name in ((found.in_place, "enforce"), (found.other, options.mode)):
        if not side.n:
            raise Fatal(
                f"there is no verdict with mode {name} to compare: name other files or topics"
            )
    if options.json:
        sys.stdout.write(json.dumps(as_json(found)) + "\n")
    else:
        out = Console()
        for table in tables(found):
            out.print(table)
    return 0


def _from_files(paths: Sequence[Path]) -> Iterator[Told]:
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _read(line, f"{path}, line {number}")
        except (OSError, UnicodeDecodeError) as error:
            raise Fatal(f"{path} cannot be read ({error}): name files of verdicts") from error


def _from_topics(kafka: KafkaSettings, *, shadow: bool) -> Iterator[Told]:
    topics = (kafka.verdict_topic, kafka.shadow_topic) if shadow else (kafka.verdict_topic,)
    for topic in topics:
        try:
            for record in read_topic(kafka, topic, time.monotonic):
                where = f"{topic}, partition {record.partition}, offset {record.offset}"
                yield _read(record.value or b"", where)
        except KafkaError as error:
            raise Fatal(f"{topic} cannot be read (kafka.*): {error!r}") from error


def _read(document: bytes | str, where: str) -> Told:
    try:
        return read_verdict(document)
    except ValueError as error:
        raise Fatal(f"{where}: {error}: only verdicts can be compared") from error


def as_json(found: Comparison) -> dict[str, object]:
    """The comparison as ``json.dumps`` takes it; a change of band is ``"allow -> review"``."""
    changed = {f"{before} -> {after}": count for (before, after), count in found.changed.items()}
    return asdict(found) | {"changed": changed}


def tables(found: Comparison) -> Iterator[Table]:
    """What a person wants to see of it."""
    yield _sides(found)
    yield _pairs(found)
    if found.largest:
        yield _largest(found)


def _sides(found: Comparison) -> Table:
    table = _columns(f"in place and {found.mode}", "", "in place", found.mode)
    sides = (found.in_place, found.other)
    table.add_row("verdicts", *(str(side.n) for side in sides))
    table.add_row("engines", *(_counts(side.engines) for side in sides))
    table.add_row("bands", *(_shares(side) for side in sides))
    for name, spreads in (
        ("score", [side.score for side in sides]),
        ("infer, ms", [side.infer_ms for side in sides]),
        ("total, ms", [side.total_ms for side in sides]),
    ):
        table.add_row(f"{name}: median, p95, max", *map(_spread, spreads))
    return table


def _pairs(found: Comparison) -> Table:
    what = "event" if found.mode == "shadow" else "image"
    table = _columns(f"pairs of the same {what}: {found.pairs}", "", "")
    changed = sum(found.changed.values())
    share = f" ({changed / found.pairs:.2%})" if found.pairs else ""
    table.add_row("decisions that change", f"{changed}{share}")
    for (before, after), count in sorted(found.changed.items()):
        table.add_row(f"  {before} -> {after}", str(count))
    table.add_row("score difference: median, p95, max", _spread(found.score_difference))
    return table


def _largest(found: Comparison) -> Table:
    table = _columns("largest differences", "content", "sha256", "in place", found.mode, "apart")
    for one in found.largest:
        table.add_row(
            escape(one.content_id),
            one.sha256[:12],
            f"{one.score_in_place:.4f} {one.band_in_place}",
            f"{one.score_other:.4f} {one.band_other}",
            f"{one.difference:.4f}",
        )
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return escape("\n".join(f"{name}: {count}" for name, count in sorted(counts.items())))


def _shares(side: Summary) -> str:
    return "\n".join(
        f"{band} {count} ({count / side.n:.1%})" for band, count in sorted(side.bands.items())
    )


def _spread(spread: Spread) -> str:
    return f"{spread.median:.4g}, {spread.p95:.4g}, {spread.max:.4g}"


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="fold")
    return table
