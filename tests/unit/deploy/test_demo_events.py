"""The demo's events: as many as asked for, every way the contract has, and truly broken ones."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from deploy.embedded.demo.events import (
    BrokenImage,
    TrafficPlan,
    broken_images,
    distinct_pictures_for,
    make_plan,
)
from deploy.embedded.demo.pictures import DemoError, folder_pictures, sample_pictures
from engines.preprocess import ImageError, Limits, decode_image

GONE = "http://127.0.0.1:9/gone.jpg"


@pytest.fixture
def broken() -> tuple[BrokenImage, ...]:
    """One fault of each kind."""
    return broken_images(GONE, GONE)


def plan_of(count: int, broken: tuple[BrokenImage, ...], spool: Path) -> TrafficPlan:
    """A plan from the samples, with that many events."""
    pictures = sample_pictures(spool, distinct_pictures_for(count, len(broken)))
    return make_plan(
        pictures, broken, serve=lambda path: f"http://host/{path.name}", expected="verdict"
    )


@pytest.mark.parametrize("count", [20, 97, 250])
def test_a_plan_has_as_many_events_as_asked_for(
    count: int, broken: tuple[BrokenImage, ...], tmp_path: Path
) -> None:
    """Distinct pictures, repeats and faults make up the number; duplicates are sent on top."""
    plan = plan_of(count, broken, tmp_path)
    assert len(plan.events) == count
    assert len({event.content_id for event in plan.events}) == count
    assert plan.duplicate_sends == 2
    assert sum(event.expected == "dead_letter" for event in plan.events) == len(broken)


def test_a_plan_uses_every_way_and_repeats_some_bytes(
    broken: tuple[BrokenImage, ...], tmp_path: Path
) -> None:
    """Inline, base64, http and file; both classes; some bytes under more than one event."""
    plan = plan_of(120, broken, tmp_path)
    assert {"bytes", "base64", "http", "file"} <= {event.kind for event in plan.events}
    assert {"real", "fake"} <= {event.label for event in plan.events}
    digests = [event.sha256 for event in plan.events if event.sha256]
    assert 5 <= len(digests) - len(set(digests)) <= 15


def test_a_plan_is_the_same_each_time(broken: tuple[BrokenImage, ...], tmp_path: Path) -> None:
    """The order is shuffled but fixed, so that two runs can be compared."""
    first, second = (plan_of(60, broken, tmp_path) for _ in range(2))
    assert [event.content_id for event in first.events] == [
        event.content_id for event in second.events
    ]


def test_a_second_copy_is_sent_after_the_first(
    broken: tuple[BrokenImage, ...], tmp_path: Path
) -> None:
    """An event that is sent twice is the same record, byte for byte."""
    sends = plan_of(60, broken, tmp_path).sends
    twice = [wire for wire in set(sends) if sends.count(wire) == 2]
    assert len(twice) == 2


def test_pictures_keep_their_format_and_differ_in_their_bytes(tmp_path: Path) -> None:
    """Encoding anew changes the bytes, never the format: neither class is told by it."""
    pictures = sample_pictures(tmp_path, 200)
    assert len({picture.sha256 for picture in pictures}) == 200
    formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    for picture in pictures[80:]:
        with Image.open(picture.path) as image:
            assert image.format == formats[picture.path.suffix]
            assert min(image.size) > 224


def test_broken_images_are_refused_with_the_code_that_is_expected(
    broken: tuple[BrokenImage, ...],
) -> None:
    """The faults that travel as images fail in the one decoder, each for its own reason."""
    images = [fault for fault in broken if fault.image is not None and fault.sha256 is None]
    assert {fault.code for fault in images} == {
        "truncated",
        "unsupported_format",
        "too_many_pixels",
    }
    for fault in images:
        with pytest.raises(ImageError) as caught:
            decode_image(fault.image or b"", Limits())
        assert caught.value.code == fault.code


def test_the_bomb_is_small_and_holds_every_row_it_announces(
    broken: tuple[BrokenImage, ...],
) -> None:
    """A decoder without a cap would find nothing wrong, and fill its memory."""
    (bomb,) = (fault for fault in broken if fault.code == "too_many_pixels")
    data = bomb.image or b""
    assert len(data) < 600_000
    width_px, height_px, bit_depth = struct.unpack(">IIB", data[16:25])
    assert (width_px, height_px, bit_depth) == (30_000, 30_000, 1)
    body_at = data.index(b"IDAT") + 4
    decompressor = zlib.decompressobj()
    size_bytes, rest = 0, data[body_at:]
    while not decompressor.eof:
        size_bytes += len(decompressor.decompress(rest, 1 << 20))
        rest = decompressor.unconsumed_tail
    assert size_bytes == height_px * (1 + width_px // 8)


def test_a_folder_gives_its_images_with_labels(tmp_path: Path) -> None:
    """Labels come from folders called real and fake; copies and other files are left out."""
    for place in ("real", "fake", "other"):
        (tmp_path / place).mkdir()
        colour = {"real": "red", "fake": "blue", "other": "green"}[place]
        Image.new("RGB", (32, 32), colour).save(tmp_path / place / "one.png")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "other" / "copy.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = {picture.label for picture in folder_pictures(tmp_path, 100)}
    assert found == {"real", "fake", None}
    assert len(folder_pictures(tmp_path, 100)) == 3
    assert len(folder_pictures(tmp_path, 2)) == 2


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    """There is nothing to show, and the message says what is looked for."""
    with pytest.raises(DemoError, match="contains no images"):
        folder_pictures(tmp_path, 100)
    with pytest.raises(DemoError, match="not a directory"):
        folder_pictures(tmp_path / "missing", 100)
