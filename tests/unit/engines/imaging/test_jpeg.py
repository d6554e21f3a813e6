"""JPEG: the fast decoder gives Pillow's pixels, and no file costs more than its pixels."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from engines.imaging.containers import MAX_PARTS, ImageError, Limits, count_scans, read_jpeg
from engines.imaging.decode import decode_pixels
from tests.support.bundles import gradient_HWC
from tests.support.images import encoded, every_kind, noise_HWC, picture, with_orientation

SUBSAMPLINGS = ["444", "422", "420", "440", "411"]
SIZES_PX = [(16, 16), (17, 31), (64, 64), (99, 255), (250, 333)]


def by_pillow(data: bytes) -> np.ndarray:
    """Pillow's pixels of a JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [30, 75, 95, 100])
def test_the_fast_decoder_gives_pillows_pixels(subsampling: str, quality: int) -> None:
    """Both must use the accurate DCT and smooth upsampling, or the detector sees other pixels."""
    for height_px, width_px in SIZES_PX:
        for pixels_HWC in (gradient_HWC(height_px, width_px), noise_HWC(height_px, width_px)):
            data = simplejpeg.encode_jpeg(pixels_HWC, quality, "RGB", subsampling)
            fast_HWC = simplejpeg.decode_jpeg(data, "RGB")
            np.testing.assert_array_equal(fast_HWC, by_pillow(data))


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": "4:2:0"},
        {"keep_rgb": True},
        {"restart_marker_blocks": 3},
        {"optimize": True},
    ],
)
def test_the_fast_decoder_gives_pillows_pixels_of_other_codings(options: dict[str, object]) -> None:
    for mode in ("RGB", "L"):
        data = encoded(picture(99, 131).convert(mode), "JPEG", quality=90, **options)
        fast_HWC = simplejpeg.decode_jpeg(data, "RGB")
        np.testing.assert_array_equal(fast_HWC, by_pillow(data))
        np.testing.assert_array_equal(decode_pixels(data, Limits())[1], fast_HWC)


def test_what_the_fast_decoder_warns_of_is_left_to_pillow() -> None:
    data = encoded(picture(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    harmless = data[:last] + b"\0" + data[last:]  # a byte to skip between two scans
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(harmless, "RGB")
    np.testing.assert_array_equal(decode_pixels(harmless, Limits())[1], by_pillow(data))


def test_only_what_makes_pixels_reaches_the_decoder() -> None:
    exif = with_orientation(6).tobytes()
    comment = b"\xff\xfe\x00\x0bdropped!\0"
    plain = encoded(picture(), "JPEG")
    data = encoded(picture(), "JPEG", exif=exif, icc_profile=b"p" * 100_000, comment=b"dropped!")
    container = read_jpeg(data[:2] + b"\xff\xff\xff" + comment + b"\0junk" + data[2:])
    assert container.data == plain
    assert container.exif == exif


def test_only_the_first_exif_block_counts() -> None:
    data = encoded(picture(), "JPEG", exif=with_orientation(6))
    second = with_orientation(3).tobytes()
    segment = b"\xff\xe1" + (len(second) + 2).to_bytes(2, "big") + second
    start = data.index(b"\xff\xdb")
    assert read_jpeg(data[:start] + segment + data[start:]).exif == with_orientation(6).tobytes()


def test_the_first_picture_of_several_is_the_one_judged() -> None:
    first, second = picture(), picture().rotate(180)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(
        decode_pixels(data, Limits())[1], by_pillow(encoded(first, "JPEG"))
    )


def crowded(segment: bytes) -> bytes:
    """A sound JPEG with as many segments before its first scan as 2 MiB hold."""
    data = encoded(picture(), "JPEG")
    return data[:2] + segment * (2 * 1024 * 1024 // len(segment)) + data[2:]


@pytest.mark.parametrize(
    "segment",
    [b"\xff\xfe\x00\x02", b"\xff\xe1\x00\x02", b"\xff\xdb\x00\x02", b"\xff\xdd\x00\x04\x00\x00"],
)
@pytest.mark.timeout(10)
def test_empty_segments_without_end_are_refused(segment: bytes) -> None:
    """Twenty megabytes of them cost Pillow 22 s."""
    with pytest.raises(ImageError) as refusal:
        decode_pixels(crowded(segment), Limits())
    assert refusal.value.code == "too_many_parts"


@pytest.mark.parametrize("filler", [b"\xff", b"\x00", b"\xff\x00", b"\xff\xd0"])
@pytest.mark.timeout(10)
def test_filler_between_segments_costs_nothing(filler: bytes) -> None:
    data = encoded(picture(), "JPEG")
    start = data.index(b"\xff\xdb")
    padded = data[:start] + filler * (4 * 1024 * 1024 // len(filler)) + data[start:]
    np.testing.assert_array_equal(decode_pixels(padded, Limits())[1], by_pillow(data))


def more_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def test_the_number_of_scans_is_limited() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    assert count_scans(data, 0) > 0
    usual = data.count(b"\xff\xda")
    decode_pixels(more_scans(data, 64 - usual), Limits())
    with pytest.raises(ImageError) as refusal:
        decode_pixels(more_scans(data, 65 - usual), Limits())
    assert refusal.value.code == "too_many_scans"


def test_a_large_image_may_have_fewer_scans_than_a_small_one() -> None:
    """64 scans of 50 megapixels took 8 s, where its usual ten take one."""
    data = more_scans(encoded(picture(), "JPEG", progressive=True), 20)
    decode_pixels(data, Limits(max_pixels=40 * 56 * 2))
    with pytest.raises(ImageError, match="over 16 scans"):
        decode_pixels(data, Limits(max_pixels=40 * 56))


def test_scan_markers_outside_the_image_do_not_count() -> None:
    """A thumbnail, a further picture or an appended video may hold any bytes."""
    data = encoded(picture(), "JPEG", comment=b"\xff\xda" * 100)
    noisy = data + b"\xff\xda" * 1000
    assert count_scans(noisy, 64) == 1
    decode_pixels(noisy, Limits())


def test_a_marker_hidden_in_a_segment_does_not_end_the_count() -> None:
    """Counting must not stop at an end marker that a decoder would skip."""
    bomb = more_scans(encoded(picture(), "JPEG", progressive=True), 100)
    first = bomb.index(b"\xff\xda")
    hidden = bomb[:first] + b"\xff\xfe\x00\x06\xff\xd9\xff\xd9" + bomb[first:]
    assert count_scans(hidden, 64) > 64


@pytest.mark.parametrize("cut", [3, 10, 100, 300])
def test_a_header_that_ends_early_is_truncated(cut: int) -> None:
    with pytest.raises(ImageError) as refusal:
        read_jpeg(encoded(picture(), "JPEG")[:cut])
    assert refusal.value.code == "truncated"


def test_a_file_that_ends_before_its_first_scan_is_corrupt() -> None:
    with pytest.raises(ImageError) as refusal:
        read_jpeg(b"\xff\xd8\xff\xd9" + every_kind()["jpeg"])
    assert refusal.value.code == "corrupt"


def test_a_usual_number_of_segments_is_far_from_the_limit() -> None:
    data = encoded(picture(), "JPEG", exif=with_orientation(1), icc_profile=b"p" * 2_000_000)
    assert data.count(b"\xff\xe2") < MAX_PARTS / 100
    decode_pixels(data, Limits())
