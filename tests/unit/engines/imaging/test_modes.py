"""Every pixel mode becomes 8-bit RGB with the colours that a person sees."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from engines.imaging.modes import to_rgb_HWC
from engines.preprocess import Limits, decode_image
from tests.support.images import encoded, picture

GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "HSV", "LAB", "YCbCr")
EVERY_MODE = GREY + COLOUR


def solid(mode: str, colour: float | tuple[int, ...]) -> Image.Image:
    """A 16 x 20 px image of one colour."""
    return Image.new(mode, (20, 16), colour)


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_every_mode_gives_rgb(mode: str) -> None:
    rgb_HWC = to_rgb_HWC(Image.new(mode, (20, 16)))
    assert rgb_HWC.shape == (16, 20, 3)
    assert rgb_HWC.dtype == np.uint8


def test_every_mode_of_the_installed_pillow_is_known_here() -> None:
    """A new Pillow with a new mode must be looked at."""
    assert set(Image.MODES) <= set(EVERY_MODE)


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBX", (10, 20, 30, 0), (10, 20, 30)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I", 200, (200, 200, 200)),
        ("I", 0x8000, (128, 128, 128)),
        ("F", 0.5, (127, 127, 127)),
        ("F", 200.0, (200, 200, 200)),
        ("I;16", 0xFFFF, (255, 255, 255)),
        ("I;16", 0x80FF, (128, 128, 128)),
        ("I;16B", 0x80FF, (128, 128, 128)),
        ("LA", (40, 255), (40, 40, 40)),
        ("LA", (40, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 255, 128), (127, 127, 255)),
    ],
)
def test_a_colour_is_what_a_person_sees(
    mode: str, colour: float | tuple[int, ...], rgb: tuple[int, int, int]
) -> None:
    np.testing.assert_array_equal(to_rgb_HWC(solid(mode, colour))[3, 5], rgb)


def test_premultiplied_colour_is_laid_on_white_like_any_other() -> None:
    plain = solid("RGBA", (200, 100, 50, 128))
    difference = to_rgb_HWC(plain.convert("RGBa")).astype(int) - to_rgb_HWC(plain)
    assert np.abs(difference).max() <= 1  # premultiplying rounds


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "LAB"])
def test_a_large_image_is_the_same_as_its_parts(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large images are converted band by band; no seam may show."""
    image = picture(70, 50).convert(mode) if mode != "LAB" else solid("LAB", (90, 140, 100))
    whole_HWC = to_rgb_HWC(image)
    monkeypatch.setattr("engines.imaging.modes._BAND_PIXELS", 170)
    np.testing.assert_array_equal(to_rgb_HWC(image), whole_HWC)


def test_lab_white_is_white() -> None:
    assert to_rgb_HWC(solid("LAB", (255, 128, 128))).min() >= 254


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_grey_keeps_its_gradient_in_either_byte_order(order: str) -> None:
    """Converting by saturation would make nearly all of it white."""
    deep_HW = np.linspace(0, 65535, 20 * 16).reshape(16, 20).astype(f"{order}u2")
    rgb_HWC = to_rgb_HWC(Image.fromarray(deep_HW))
    np.testing.assert_array_equal(rgb_HWC[..., 0], deep_HW >> 8)


def test_deep_grey_is_scaled_as_deep_colour_is() -> None:
    """The same grey, stored in 16-bit grey and 16-bit colour, gives the same pixels."""
    deep_HW = np.arange(0, 65536, 205, dtype=np.uint16).reshape(16, 20)
    grey = decode_image(encoded(Image.fromarray(deep_HW), "PNG"), Limits())
    np.testing.assert_array_equal(grey.pixels_HWC[..., 1], (deep_HW >> 8).astype(np.uint8))


def test_numbers_beyond_any_usual_range_are_stretched() -> None:
    deep_HW = np.linspace(-1000, 1_000_000, 320).reshape(16, 20).astype(np.float32)
    rgb_HWC = to_rgb_HWC(Image.fromarray(deep_HW))
    assert (rgb_HWC.min(), rgb_HWC.max()) == (0, 255)


def test_a_constant_image_beyond_any_range_does_not_divide_by_zero() -> None:
    assert to_rgb_HWC(solid("F", -5.0)).max() == 0


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_rgb_HWC(solid("F", number))


def test_a_transparent_palette_entry_is_white() -> None:
    palette = picture().quantize(8)
    entry = palette.getpixel((0, 0))
    rgb_HWC = decode_image(encoded(palette, "PNG", transparency=entry), Limits()).pixels_HWC
    assert rgb_HWC[0, 0].tolist() == [255, 255, 255]
    opaque_HWC = decode_image(encoded(palette, "PNG"), Limits()).pixels_HWC
    assert opaque_HWC[0, 0].tolist() != [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "key"),
    [("L", 40, 40), ("RGB", (1, 2, 3), (1, 2, 3)), ("I;16", 4000, 4000), ("1", 0, 0)],
)
def test_a_colour_key_is_white(
    mode: str, colour: float | tuple[int, ...], key: int | tuple[int, ...]
) -> None:
    data = encoded(solid(mode, colour), "PNG", transparency=key)
    assert decode_image(data, Limits()).pixels_HWC.min() == 255


def test_adobe_cmyk_is_not_decoded_as_its_negative() -> None:
    """Adobe stores CMYK inverted; a light image must come out light."""
    light = solid("CMYK", (10, 10, 10, 0))
    assert decode_image(encoded(light, "JPEG"), Limits()).pixels_HWC.min() > 200


def test_signed_16_bit_grey_of_a_tiff_is_not_wrapped() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[TiffImagePlugin.SAMPLEFORMAT] = 2
    signed = Image.fromarray(np.linspace(-3000, 3000, 320).reshape(16, 20).astype(np.int32))
    rgb_HWC = decode_image(encoded(signed, "TIFF", tiffinfo=info), Limits()).pixels_HWC
    assert np.all(np.diff(rgb_HWC[..., 0].ravel().astype(int)) >= 0)
    assert rgb_HWC.max() == 255
