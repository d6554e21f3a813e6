"""How a shadow (or a canary) differs from the engine in place: pure, from verdicts to figures.

In: verdicts as they lie on the topics. Out: a :class:`Comparison`. Errors: ``ValueError`` for what is no verdict.

A shadow scores the same events as the engine in place, so its verdicts are paired by event. A canary decides about
other events; its verdicts are paired by the image's bytes, where both sides have met the same.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["shadow", "canary"]
IN_PLACE = "enforce"


@dataclass(frozen=True, slots=True)
class Told:
    """What a comparison needs of a verdict; ``engine`` is name, version and the first of the bundle's digest."""

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
class Spread:
    """Median, 95th percentile and largest of some values; all 0 where there is none."""

    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One side, whether paired or not. Scores in [0, 1], times in milliseconds."""

    n: int
    engines: Mapping[str, int]
    bands: Mapping[str, int]
    score: Spread
    infer_ms: Spread
    total_ms: Spread


@dataclass(frozen=True, slots=True)
class Example:
    """One pair: what each side said of the same image; ``difference`` is that of the scores, absolute."""

    content_id: str
    event_id: str
    sha256: str
    score_in_place: float
    score_other: float
    band_in_place: str
    band_other: str
    difference: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The engine in place, the other one, and where they differ.

    Attributes:
        mode: Which the other one is.
        in_place: All verdicts of the engines in place.
        other: All verdicts of the other ones.
        pairs: How many pairs there are.
        changed: Pairs whose bands differ: from the band in place to the other one.
        score_difference: Of the pairs, absolute.
        largest: The pairs whose scores differ most, largest first.
    """

    mode: Side
    in_place: Summary
    other: Summary
    pairs: int
    changed: Mapping[tuple[str, str], int]
    score_difference: Spread
    largest: tuple[Example, ...]


def read_verdict(document: bytes | str) -> Told:
    """What a comparison needs of a verdict; fields that a later release added are no matter."""
    try:
        verdict: Any = json.loads(document)
        data, model, latency_ms = (
            verdict["data"],
            verdict["data"]["model"],
            verdict["data"]["latency_ms"],
        )
        return Told(
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
        raise ValueError(f"no verdict ({type(error).__name__}: {error})") from error


def compare(
    verdicts: Iterable[Told], mode: Side, *, version: str | None = None, examples: int = 10
) -> Comparison:
    """Compare all verdicts of one mode with those of the engines in place.

    Args:
        verdicts: Of both sides, in any order; a second copy (the same id) counts once.
        mode: Which side is compared with the one in place.
        version: Only this version of the other side; by default all that occur.
        examples: How many of the largest differences to keep.
    """
    once = list({each.id: each for each in verdicts}.values())
    in_place = [each for each in once if each.mode == IN_PLACE]
    other = [each for each in once if each.mode == mode and version in (None, each.version)]
    pairs = _pairs(in_place, other, mode)
    changed = Counter(
        (pair.band_in_place, pair.band_other)
        for pair in pairs
        if pair.band_in_place != pair.band_other
    )
    largest = sorted(pairs, key=lambda pair: pair.difference, reverse=True)[:examples]
    differences = spread([pair.difference for pair in pairs])
    return Comparison(
        mode,
        _summary(in_place),
        _summary(other),
        len(pairs),
        dict(changed),
        differences,
        tuple(largest),
    )


def spread(values: Sequence[float]) -> Spread:
    """Median, 95th percentile (each the nearest rank: a value that occurs) and largest."""
    if not values:
        return Spread(0.0, 0.0, 0.0)
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Spread(rank(0.5), rank(0.95), ordered[-1])


def _pairs(in_place: Sequence[Told], other: Sequence[Told], mode: Side) -> list[Example]:
    def key(told: Told) -> tuple[str, ...]:
        return (told.content_id, told.event_id) if mode == "shadow" else (told.sha256,)

    known = {key(each): each for each in in_place}
    # The last of each key: where a canary met the same bytes again and again, that is one image.
    met = {(key(each), each.engine): each for each in other}
    return [_example(known[at], each) for (at, _), each in met.items() if at in known]


def _example(in_place: Told, other: Told) -> Example:
    return Example(
        content_id=other.content_id,
        event_id=other.event_id,
        sha256=other.sha256,
        score_in_place=in_place.score,
        score_other=other.score,
        band_in_place=in_place.band,
        band_other=other.band,
        difference=abs(other.score - in_place.score),
    )


def _summary(verdicts: Sequence[Told]) -> Summary:
    return Summary(
        n=len(verdicts),
        engines=dict(Counter(each.engine for each in verdicts)),
        bands=dict(Counter(each.band for each in verdicts)),
        score=spread([each.score for each in verdicts]),
        infer_ms=spread([each.infer_ms for each in verdicts]),
        total_ms=spread([each.total_ms for each in verdicts]),
    )
