"""How the verdicts of a shadow or a canary differ from those of the deciding engine.

Reads verdicts from the verdict topics, or from files with one JSON object per line, and prints tables or one JSON
object. A shadow scores the same events as the deciding engine, so verdicts are paired by event. A canary decides
other events; its verdicts are paired by the image's SHA-256, where both sides have scored the same bytes.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from kafka.errors import KafkaError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.errors import Fatal
from worker.kafka import read_topic
from worker.settings import KafkaSettings, Settings

Side = Literal["shadow", "canary"]
IN_PLACE = "enforce"


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """The fields of a verdict that are compared; ``engine`` is name, version and a short bundle digest."""

    id: str
    content_id: str
    event_id: str
    sha256: str
    mode: str
    version: str
    engine: str
    band: str
    score: float
    infer_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median, 95th percentile and largest of some values; all 0 if there are no values."""

    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class SideSummary:
    """All verdicts of one side, paired or not. Scores in [0, 1], times in milliseconds."""

    n: int
    engines: Mapping[str, int]
    bands: Mapping[str, int]
    score: Quantiles
    infer_ms: Quantiles
    total_ms: Quantiles


@dataclass(frozen=True, slots=True)
class VerdictPair:
    """One pair: both results for the same image; ``difference`` is the absolute difference of the scores."""

    content_id: str
    event_id: str
    sha256: str
    score_in_place: float
    score_other: float
    band_in_place: str
    band_other: str
    difference: float


@dataclass(frozen=True, slots=True)
class EngineComparison:
    """The deciding engine, the other side, and their differences.

    Attributes:
        mode: The mode of the other side.
        in_place: All verdicts of the deciding engines.
        other: All verdicts of the other side.
        pairs: The number of pairs.
        changed: The number of pairs for each change of band, as (band in place, other band).
        score_difference: Absolute difference of the scores over all pairs.
        largest: The pairs with the largest differences, largest first.
    """

    mode: Side
    in_place: SideSummary
    other: SideSummary
    pairs: int
    changed: Mapping[tuple[str, str], int]
    score_difference: Quantiles
    largest: tuple[VerdictPair, ...]


def run_compare(settings: Settings, options: argparse.Namespace, out: TextIO) -> None:
    """The command ``compare``: write the differences as tables, or as one JSON object.

    Raises:
        Fatal: A source cannot be read, or one side has no verdict.
    """
    if options.examples < 0:
        raise Fatal(f"--examples {options.examples} must be 0 or a positive integer")
    verdicts = (
        _from_files(options.files)
        if options.files
        else _from_topics(settings.kafka, shadow=options.mode == "shadow")
    )
    comparison = compare(
        verdicts, options.mode, version=options.version_only, examples=options.examples
    )
    for side, mode in ((comparison.in_place, IN_PLACE), (comparison.other, options.mode)):
        if not side.n:
            raise Fatal(f"no verdict has mode {mode}: name other files or topics")
    if options.json:
        out.write(json.dumps(as_json(comparison)) + "\n")
    else:
        console = Console(file=out)
        # rich would end the process at a closed pipe by itself.
        with console.capture() as text:
            for table in tables(comparison):
                console.print(table)
        out.write(text.get())


def read_verdict(document: bytes | str) -> VerdictRow:
    """Read the fields that are compared; unknown fields are ignored.

    Raises:
        ValueError: The document is not a verdict.
    """
    try:
        verdict: Any = json.loads(document)
        data = verdict["data"]
        model, latency_ms = data["model"], data["latency_ms"]
        return VerdictRow(
            id=str(verdict["id"]),
            content_id=str(data["content_id"]),
            event_id=str(data["event_id"]),
            sha256=str(data["media"]["sha256"]),
            mode=str(data["mode"]),
            version=str(model["version"]),
            engine=f"{model['name']} {model['version']} ({str(model['bundle_sha256'])[:12]})",
            band=str(data["band"]),
            score=float(data["scores"][0]["score"]),
            infer_ms=float(latency_ms["infer"]),
            total_ms=float(latency_ms["total"]),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not a verdict ({type(error).__name__}: {error})") from error


def compare(
    verdicts: Iterable[VerdictRow], mode: Side, *, version: str | None = None, examples: int = 10
) -> EngineComparison:
    """Compare all verdicts of one mode with those of the deciding engines.

    Args:
        verdicts: Of both sides, in any order; copies with the same id count once.
        mode: The side to compare with the deciding engine.
        version: Only this version of the other side; by default all.
        examples: How many of the largest differences to keep.
    """
    distinct = list({verdict.id: verdict for verdict in verdicts}.values())
    in_place = [verdict for verdict in distinct if verdict.mode == IN_PLACE]
    other = [
        verdict
        for verdict in distinct
        if verdict.mode == mode and version in (None, verdict.version)
    ]
    pairs = _pairs(in_place, other, mode)
    changed = Counter(
        (pair.band_in_place, pair.band_other)
        for pair in pairs
        if pair.band_in_place != pair.band_other
    )
    return EngineComparison(
        mode=mode,
        in_place=_summary(in_place),
        other=_summary(other),
        pairs=len(pairs),
        changed=dict(changed),
        score_difference=quantiles([pair.difference for pair in pairs]),
        largest=tuple(sorted(pairs, key=lambda pair: pair.difference, reverse=True)[:examples]),
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    """Median and 95th percentile by nearest rank (so each occurs among the values), and the largest."""
    if not values:
        return Quantiles(0.0, 0.0, 0.0)
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Quantiles(rank(0.5), rank(0.95), ordered[-1])


def _pairs(
    in_place: Sequence[VerdictRow], other: Sequence[VerdictRow], mode: Side
) -> list[VerdictPair]:
    def key(row: VerdictRow) -> tuple[str, ...]:
        return (row.content_id, row.event_id) if mode == "shadow" else (row.sha256,)

    partners = {key(row): row for row in in_place}
    # The last of each key: a canary that scored the same bytes many times counts as one image.
    candidates = {(key(row), row.engine): row for row in other}
    return [
        _example(partners[pair_key], row)
        for (pair_key, _), row in candidates.items()
        if pair_key in partners
    ]


def _example(in_place: VerdictRow, other: VerdictRow) -> VerdictPair:
    return VerdictPair(
        content_id=other.content_id,
        event_id=other.event_id,
        sha256=other.sha256,
        score_in_place=in_place.score,
        score_other=other.score,
        band_in_place=in_place.band,
        band_other=other.band,
        difference=abs(other.score - in_place.score),
    )


def _summary(rows: Sequence[VerdictRow]) -> SideSummary:
    return SideSummary(
        n=len(rows),
        engines=dict(Counter(row.engine for row in rows)),
        bands=dict(Counter(row.band for row in rows)),
        score=quantiles([row.score for row in rows]),
        infer_ms=quantiles([row.infer_ms for row in rows]),
        total_ms=quantiles([row.total_ms for row in rows]),
    )


def _from_files(paths: Sequence[Path]) -> Iterator[VerdictRow]:
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _read(line, f"{path}, line {number}")
        except (OSError, UnicodeDecodeError) as error:
            raise Fatal(f"{path} cannot be read ({error}): name files of verdicts") from error


def _from_topics(kafka: KafkaSettings, *, shadow: bool) -> Iterator[VerdictRow]:
    topics = (kafka.verdict_topic, kafka.shadow_topic) if shadow else (kafka.verdict_topic,)
    for topic in topics:
        try:
            for record in read_topic(kafka, topic, time.monotonic):
                where = f"{topic}, partition {record.partition}, offset {record.offset}"
                yield _read(record.value or b"", where)
        except KafkaError as error:
            raise Fatal(f"{topic} cannot be read (kafka.*): {error!r}") from error


def _read(document: bytes | str, where: str) -> VerdictRow:
    try:
        return read_verdict(document)
    except ValueError as error:
        raise Fatal(f"{where}: {error}: only verdicts can be compared") from error


def as_json(comparison: EngineComparison) -> dict[str, object]:
    """The comparison for ``json.dumps``; a change of band becomes ``"allow -> review"``."""
    changed = {
        f"{before} -> {after}": count for (before, after), count in comparison.changed.items()
    }
    return asdict(comparison) | {"changed": changed}


def tables(comparison: EngineComparison) -> Iterator[Table]:
    """The comparison as tables for people."""
    yield _sides_table(comparison)
    yield _pairs_table(comparison)
    if comparison.largest:
        yield _largest_table(comparison)


def _sides_table(comparison: EngineComparison) -> Table:
    table = _columns(f"in place and {comparison.mode}", "", "in place", comparison.mode)
    sides = (comparison.in_place, comparison.other)
    table.add_row("verdicts", *(str(side.n) for side in sides))
    table.add_row("engines", *(_counts(side.engines) for side in sides))
    table.add_row("bands", *(_shares(side) for side in sides))
    for name, values in (
        ("score", [side.score for side in sides]),
        ("infer, ms", [side.infer_ms for side in sides]),
        ("total, ms", [side.total_ms for side in sides]),
    ):
        table.add_row(f"{name}: median, p95, max", *map(_quantiles_text, values))
    return table


def _pairs_table(comparison: EngineComparison) -> Table:
    key = "event" if comparison.mode == "shadow" else "image"
    table = _columns(f"pairs of the same {key}: {comparison.pairs}", "", "")
    changed = sum(comparison.changed.values())
    share = f" ({changed / comparison.pairs:.2%})" if comparison.pairs else ""
    table.add_row("bands that differ", f"{changed}{share}")
    for (before, after), count in sorted(comparison.changed.items()):
        table.add_row(f"  {before} -> {after}", str(count))
    table.add_row(
        "score difference: median, p95, max", _quantiles_text(comparison.score_difference)
    )
    return table


def _largest_table(comparison: EngineComparison) -> Table:
    table = _columns(
        "largest differences", "content", "sha256", "in place", comparison.mode, "difference"
    )
    for example in comparison.largest:
        table.add_row(
            escape(example.content_id),
            example.sha256[:12],
            f"{example.score_in_place:.4f} {example.band_in_place}",
            f"{example.score_other:.4f} {example.band_other}",
            f"{example.difference:.4f}",
        )
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return escape("\n".join(f"{name}: {count}" for name, count in sorted(counts.items())))


def _shares(side: SideSummary) -> str:
    return "\n".join(
        f"{band} {count} ({count / side.n:.1%})" for band, count in sorted(side.bands.items())
    )


def _quantiles_text(values: Quantiles) -> str:
    return f"{values.median:.4g}, {values.p95:.4g}, {values.max:.4g}"


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="fold")
    return table
