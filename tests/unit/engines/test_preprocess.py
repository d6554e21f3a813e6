"""Preprocessing: crops of native pixels, always of the right shape, always the same ones."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import (
    ImageError,
    Limits,
    crop_image,
    crop_origins_px,
    decode_image,
    prepare,
)
from tests.support.bundles import gradient_HWC
from tests.support.images import encoded, every_kind, picture, with_orientation

CENTER = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


FIVE = PreprocessSpec(version="1", crop_policy="five_crop", crop_px=32, max_crops=5)


def grid(max_crops: int, crop_px: int = 32) -> PreprocessSpec:
    """A grid policy."""
    return PreprocessSpec(version="1", crop_policy="grid", crop_px=crop_px, max_crops=max_crops)


def test_the_center_crop_holds_native_pixels() -> None:
    pixels_HWC = gradient_HWC(50, 90)
    np.testing.assert_array_equal(crop_image(pixels_HWC, CENTER), pixels_HWC[None, 9:41, 29:61])


def test_an_image_of_the_crops_size_is_its_own_crop() -> None:
    pixels_HWC = gradient_HWC(32, 32)
    np.testing.assert_array_equal(crop_image(pixels_HWC, CENTER)[0], pixels_HWC)


def test_a_small_image_is_padded_by_reflection_on_both_sides() -> None:
    pixels_HWC = gradient_HWC(20, 32)
    crop_HWC = crop_image(pixels_HWC, CENTER)[0]
    np.testing.assert_array_equal(crop_HWC[6:26], pixels_HWC)
    np.testing.assert_array_equal(crop_HWC[5], pixels_HWC[1])  # row 0 is the mirror
    np.testing.assert_array_equal(crop_HWC[0], pixels_HWC[6])
    np.testing.assert_array_equal(crop_HWC[26], pixels_HWC[18])


def test_a_side_many_times_smaller_than_the_crop_is_reflected_again_and_again() -> None:
    pixels_HWC = gradient_HWC(3, 400)
    crop_HWC = crop_image(pixels_HWC, CENTER)[0]
    expected_H = np.pad(np.arange(3), (14, 15), mode="reflect")
    np.testing.assert_array_equal(crop_HWC, pixels_HWC[expected_H, 184:216])


def test_a_long_strip_is_cropped_before_it_is_padded() -> None:
    """Padding first would take 1.5 GiB here."""
    pixels_HWC = np.zeros((16, 1_000_000, 3), np.uint8)
    assert crop_image(pixels_HWC, grid(4, crop_px=512)).shape == (4, 512, 512, 3)


@pytest.mark.parametrize(
    ("height_px", "width_px", "max_crops", "origins"),
    [
        (32, 32, 4, ((0, 0),)),
        (20, 20, 4, ((0, 0),)),
        (63, 63, 4, ((15, 15),)),  # a second one would overlap
        (64, 64, 4, ((0, 0), (0, 32), (32, 0), (32, 32))),
        (32, 100, 3, ((0, 0), (0, 34), (0, 68))),
        (100, 32, 2, ((0, 0), (68, 0))),
        (200, 100, 2, ((0, 34), (168, 34))),  # along the longer side
        (100, 100, 1, ((34, 34),)),
        (100, 200, 5, ((34, 0), (34, 42), (34, 84), (34, 126), (34, 168))),
    ],
)
def test_the_grid_covers_known_places(
    height_px: int, width_px: int, max_crops: int, origins: tuple[tuple[int, int], ...]
) -> None:
    assert crop_origins_px(height_px, width_px, grid(max_crops)) == origins


@pytest.mark.parametrize(
    ("height_px", "width_px", "origins"),
    [
        (64, 64, ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))),
        (100, 201, ((0, 0), (0, 169), (68, 0), (68, 169), (34, 84))),
        (63, 200, ((15, 0), (15, 42), (15, 84), (15, 126), (15, 168))),  # corners would overlap
        (100, 63, ((0, 15), (34, 15), (68, 15))),
        (20, 20, ((0, 0),)),
    ],
)
def test_five_crops_are_the_corners_and_the_centre_where_corners_fit(
    height_px: int, width_px: int, origins: tuple[tuple[int, int], ...]
) -> None:
    assert crop_origins_px(height_px, width_px, FIVE) == origins
    assert len(crop_image(gradient_HWC(height_px, width_px), FIVE)) == len(origins)


SIDES = st.integers(1, 300)


@given(height_px=SIDES, width_px=SIDES, max_crops=st.integers(1, 20), crop_px=st.integers(1, 64))
def test_grid_crops_lie_inside_and_never_overlap(
    height_px: int, width_px: int, max_crops: int, crop_px: int
) -> None:
    spec = grid(max_crops, crop_px)
    origins = crop_origins_px(height_px, width_px, spec)
    assert 1 <= len(origins) <= max_crops
    for y, x in origins:
        assert 0 <= y <= max(0, height_px - crop_px)
        assert 0 <= x <= max(0, width_px - crop_px)
    for index, (y, x) in enumerate(origins):
        for other_y, other_x in origins[:index]:
            assert abs(y - other_y) >= crop_px or abs(x - other_x) >= crop_px


@settings(deadline=None, max_examples=50)
@given(height_px=SIDES, width_px=SIDES, max_crops=st.integers(1, 9), crop_px=st.integers(1, 64))
def test_crops_always_have_the_shape_that_the_model_takes(
    height_px: int, width_px: int, max_crops: int, crop_px: int
) -> None:
    spec = grid(max_crops, crop_px)
    crops_NHWC = crop_image(gradient_HWC(height_px, width_px), spec)
    origins = crop_origins_px(height_px, width_px, spec)
    assert crops_NHWC.shape == (len(origins), crop_px, crop_px, 3)
    assert crops_NHWC.dtype == np.uint8
    assert crops_NHWC.flags.c_contiguous


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (0, 32, 3)])
def test_pixels_of_another_shape_are_the_callers_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected pixels"):
        crop_image(np.zeros(shape, np.uint8), CENTER)


def test_prepare_is_decoding_then_cropping() -> None:
    data = encoded(picture(80, 60), "PNG", exif=with_orientation(6))
    prepared = prepare(data, grid(4), Limits())
    assert (prepared.mime, prepared.width_px, prepared.height_px) == ("image/png", 80, 60)
    decoded = decode_image(data, Limits())
    np.testing.assert_array_equal(prepared.image_NHWC, crop_image(decoded.pixels_HWC, grid(4)))


def test_prepare_is_the_same_in_many_threads_at_once() -> None:
    files = list(every_kind().values())

    def crops(data: bytes) -> NDArray[np.uint8]:
        return prepare(data, CENTER, Limits()).image_NHWC

    alone = [crops(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(crops, files * 8))
    for index, crops_NHWC in enumerate(together):
        np.testing.assert_array_equal(crops_NHWC, alone[index % len(files)])


def test_the_limits_must_make_sense() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        Limits(max_pixels=0)


def test_an_upload_that_cannot_be_judged_says_so() -> None:
    with pytest.raises(ImageError) as refusal:
        prepare(b"hello", CENTER, Limits())
    assert refusal.value.code == "unsupported_format"
