"""How two engines differ: paired by event or by image, counted once, the largest differences first."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.engines import make_tiny_engine
from tests.unit.worker.samples import decided
from tests.unit.worker.test_messages import make_renderer
from worker.cli import main
from worker.compare import Quantiles, VerdictRow, compare, quantiles, read_verdict


def row(
    number: int, mode: str, band: str, score: float, *, version: str = "0.1.0", sha256: str = ""
) -> VerdictRow:
    """The verdict of one engine on event ``number``."""
    return VerdictRow(
        id=f"{mode}-{version}-{number}",
        content_id=f"content-{number}",
        event_id=f"event-{number}",
        sha256=sha256 or f"{number:064}",
        mode=mode,
        version=version,
        engine=f"tiny {version} (abc)",
        band=band,
        score=score,
        infer_ms=10.0 * number,
        total_ms=100.0,
    )


def test_a_real_verdict_is_read(tmp_path: Path) -> None:
    """Also where a later release has added a field."""
    engine = make_tiny_engine(tmp_path, "shadow")
    document = json.loads(make_renderer().render(decided(engine)).message.value or b"")
    document["data"]["later"] = 1
    comparison = read_verdict(json.dumps(document))
    assert (comparison.mode, comparison.band, comparison.score) == ("shadow", "review", 0.75)
    assert comparison.engine == f"tiny 0.1.0 ({engine.bundle.sha256[:12]})"
    assert (comparison.infer_ms, comparison.content_id) == (4.0, "content-1")


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"id": "x", "data": {"model": 7}}', "null"])
def test_what_is_no_verdict_is_refused(document: str) -> None:
    """In one kind of error, whatever is wrong."""
    with pytest.raises(ValueError, match="not a verdict"):
        read_verdict(document)


def test_a_shadow_is_compared_event_by_event() -> None:
    """Changes by pair of bands, differences of the scores, the largest first; what has no partner is not paired."""
    verdicts = [
        row(1, "enforce", "allow", 0.1),
        row(2, "enforce", "allow", 0.2),
        row(3, "enforce", "review", 0.6),
        row(4, "enforce", "review", 0.9),
        row(1, "shadow", "allow", 0.15),
        row(2, "shadow", "review", 0.7),
        row(3, "shadow", "allow", 0.3),
        row(5, "shadow", "allow", 0.0),
        row(2, "canary", "review", 0.99),
    ]
    comparison = compare(verdicts, "shadow", examples=2)
    assert (comparison.in_place.n, comparison.other.n, comparison.pairs) == (4, 4, 3)
    assert comparison.changed == {("allow", "review"): 1, ("review", "allow"): 1}
    difference = comparison.score_difference
    assert [difference.median, difference.p95, difference.max] == pytest.approx([0.3, 0.5, 0.5])
    assert [pair.content_id for pair in comparison.largest] == ["content-2", "content-3"]
    assert (comparison.largest[0].band_in_place, comparison.largest[0].band_other) == (
        "allow",
        "review",
    )
    assert comparison.other.bands == {"allow": 3, "review": 1}
    assert comparison.other.infer_ms == Quantiles(20.0, 50.0, 50.0)


def test_a_second_copy_counts_once() -> None:
    """What a crash or a redelivery published twice has the same id."""
    pair = [row(1, "enforce", "allow", 0.1), row(1, "shadow", "review", 0.9)]
    comparison = compare([*pair, *pair], "shadow")
    assert (comparison.in_place.n, comparison.other.n, comparison.pairs) == (1, 1, 1)


def test_a_canary_is_compared_image_by_image() -> None:
    """It decides about other contents: only the same bytes, met by both sides, can be compared."""
    verdicts = [
        row(1, "enforce", "allow", 0.1, sha256="a" * 64),
        row(2, "enforce", "allow", 0.2, sha256="b" * 64),
        row(3, "canary", "review", 0.6, sha256="a" * 64),
        row(4, "canary", "review", 0.6, sha256="a" * 64),
        row(5, "canary", "allow", 0.3, sha256="c" * 64),
    ]
    comparison = compare(verdicts, "canary")
    assert (comparison.in_place.n, comparison.other.n, comparison.pairs) == (2, 3, 1)
    assert comparison.changed == {("allow", "review"): 1}


def test_one_version_of_many_can_be_looked_at() -> None:
    """By default all are, each paired with the same event."""
    verdicts = [
        row(1, "enforce", "allow", 0.1),
        row(1, "shadow", "allow", 0.2, version="0.2.0"),
        row(1, "shadow", "review", 0.6, version="0.3.0"),
    ]
    assert compare(verdicts, "shadow").pairs == 2
    only = compare(verdicts, "shadow", version="0.2.0")
    assert (only.pairs, only.changed) == (1, {})
    assert only.other.engines == {"tiny 0.2.0 (abc)": 1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_spread_is_of_values_that_occur(values: list[float]) -> None:
    """In order, and the largest is the largest."""
    comparison = quantiles(values)
    assert {comparison.median, comparison.p95, comparison.max} <= set(values)
    assert comparison.median <= comparison.p95 <= comparison.max == max(values)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Verdicts of an engine in place and of a shadow, in a file each."""
    paths = []
    for role in ("deciding", "shadow"):
        engine = make_tiny_engine(tmp_path / role, "shadow" if role == "shadow" else "deciding")
        probability = 0.4 if role == "shadow" else 0.75
        message = make_renderer().render(decided(engine, probability=probability)).message
        paths.append(tmp_path / f"{role}.jsonl")
        paths[-1].write_bytes((message.value or b"") + b"\n\n")
    return paths


@pytest.mark.usefixtures("own_logging")
def test_the_command_reads_files(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON for scripts, as tables for people."""
    assert main(["compare", *map(str, files), "--json"], {}) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert (comparison["mode"], comparison["pairs"], comparison["changed"]) == ("shadow", 1, {})
    assert comparison["score_difference"]["max"] == pytest.approx(0.35)
    assert comparison["largest"][0]["difference"] == pytest.approx(0.35)
    assert main(["compare", *map(str, files)], {}) == 0
    shown = capsys.readouterr().out
    assert "pairs of the same event: 1" in shown
    assert "0.7500 review" in shown


@pytest.mark.usefixtures("own_logging")
def test_the_command_says_what_is_missing(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A side without verdicts, a line that is none, a file that is not there: status 1, and which."""
    (tmp_path / "odd.jsonl").write_text("\n{}\n")
    for arguments, message in (
        ([files[0]], "no verdict has mode shadow"),
        ([*files, "--mode", "canary"], "no verdict has mode canary"),
        ([tmp_path / "odd.jsonl"], "odd.jsonl, line 2: not a verdict"),
        ([tmp_path / "none.jsonl"], "none.jsonl cannot be read"),
        ([*files, "--examples", "-1"], "--examples -1 must be 0 or a positive"),
    ):
        assert main(["compare", *map(str, arguments)], {}) == 1
        assert message in capsys.readouterr().err
