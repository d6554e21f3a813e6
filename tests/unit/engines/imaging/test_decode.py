"""Decoding: sound files give the pixels that Pillow gives, upright; all others an ImageError."""

import io
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from engines.imaging.containers import ImageError, Limits
from engines.imaging.decode import decode_pixels
from tests.support.images import encoded, every_kind, picture, with_orientation

KINDS = every_kind()
MIMES = {"mpo": "image/jpeg", "apng": "image/png"}


def refusal_of(data: bytes, limits: Limits | None = None) -> ImageError:
    """The error that the upload is refused with."""
    with pytest.raises(ImageError) as refusal:
        decode_pixels(data, limits or Limits())
    return refusal.value


def as_pillow_shows_it(data: bytes) -> NDArray[np.uint8]:
    """Pillow's own way from bytes to upright RGB, for files without transparency."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_decoded_to_its_size(kind: str) -> None:
    mime, pixels_HWC = decode_pixels(KINDS[kind], Limits())
    assert mime == MIMES.get(kind, f"image/{kind.split(maxsplit=1)[0]}")
    assert sorted(pixels_HWC.shape) == [3, 40, 56]
    assert pixels_HWC.dtype == np.uint8
    assert pixels_HWC.flags.c_contiguous


OPAQUE = [
    kind
    for kind in KINDS
    if not any(word in kind for word in ("alpha", "png palette", "16", "float"))
]


@pytest.mark.parametrize("kind", OPAQUE)
def test_an_opaque_file_gives_the_pixels_that_pillow_gives(kind: str) -> None:
    _, pixels_HWC = decode_pixels(KINDS[kind], Limits())
    np.testing.assert_array_equal(pixels_HWC, as_pillow_shows_it(KINDS[kind]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_turned_upright(file_format: str, orientation: int) -> None:
    data = encoded(picture(), file_format, exif=with_orientation(orientation))
    _, pixels_HWC = decode_pixels(data, Limits())
    np.testing.assert_array_equal(pixels_HWC, as_pillow_shows_it(data))
    assert pixels_HWC.shape == ((56, 40, 3) if orientation >= 5 else (40, 56, 3))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_leaves_the_image_as_it_is(file_format: str) -> None:
    upright = decode_pixels(encoded(picture(), file_format), Limits())[1]
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"junk"):
        _, pixels_HWC = decode_pixels(encoded(picture(), file_format, exif=exif), Limits())
        np.testing.assert_array_equal(pixels_HWC, upright)


def test_transparency_is_laid_on_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    for file_format, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        _, pixels_HWC = decode_pixels(encoded(image, file_format, **options), Limits())
        assert pixels_HWC.min() == 255, file_format


def test_an_animation_gives_its_first_frame() -> None:
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    for file_format, options in (
        ("GIF", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {}),
    ):
        data = encoded(first, file_format, save_all=True, append_images=[second], **options)
        _, pixels_HWC = decode_pixels(data, Limits())
        red, _, blue = pixels_HWC.reshape(-1, 3).mean(axis=0)
        assert red > 240, file_format
        assert blue < 20, file_format


def test_a_gif_frame_smaller_than_its_screen_keeps_the_screens_size() -> None:
    palette = Image.new("P", (40, 30))
    data = bytearray(encoded(palette, "GIF"))
    data[6:10] = (64).to_bytes(2, "little") + (48).to_bytes(2, "little")
    assert decode_pixels(bytes(data), Limits())[1].shape == (48, 64, 3)


@pytest.mark.parametrize(
    "kind", [one for one in KINDS if one not in ("apng", "gif animated", "mpo")]
)
def test_a_file_that_ends_early_is_refused(kind: str) -> None:
    """Half an image is not an image: its missing part would be judged as grey."""
    data = KINDS[kind]
    for kept in (len(data) // 2, len(data) // 4, 12):
        assert refusal_of(data[:kept]).code in ("truncated", "corrupt", "unsupported_format")


@pytest.mark.parametrize("kind", ["apng", "gif animated", "mpo"])
def test_a_file_of_several_pictures_needs_the_first_of_them(kind: str) -> None:
    whole_HWC = decode_pixels(KINDS[kind], Limits())[1]
    kept = len(KINDS[kind]) * 3 // 4
    np.testing.assert_array_equal(decode_pixels(KINDS[kind][:kept], Limits())[1], whole_HWC)
    assert refusal_of(KINDS[kind][: len(KINDS[kind]) // 8]).code in ("truncated", "corrupt")


def test_a_jpeg_that_lacks_its_end_is_truncated() -> None:
    assert refusal_of(KINDS["jpeg"][:-2]).code == "truncated"
    assert refusal_of(KINDS["jpeg"][:-40]).code == "truncated"


@pytest.mark.parametrize(
    "data",
    [b"hello, world", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n", bytes(100)],
)
def test_what_is_no_image_is_refused_by_its_signature(data: bytes) -> None:
    refused = refusal_of(data)
    assert refused.code == "unsupported_format"
    assert "jpeg" in str(refused)  # says what is taken


def test_formats_that_are_not_taken_are_refused_though_pillow_reads_them() -> None:
    for file_format in ("PPM", "TGA", "ICO", "PCX", "JPEG2000", "EPS"):
        assert refusal_of(encoded(picture(), file_format)).code == "unsupported_format"


def test_no_bytes_are_refused() -> None:
    assert refusal_of(b"").code == "empty"


def test_too_many_bytes_are_refused_before_anything_else() -> None:
    assert refusal_of(bytes(11), Limits(max_bytes=10)).code == "too_many_bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixel_limit_holds_for_every_kind(kind: str) -> None:
    assert refusal_of(KINDS[kind], Limits(max_pixels=40 * 56 - 1)).code == "too_many_pixels"
    decode_pixels(KINDS[kind], Limits(max_pixels=40 * 56))


@pytest.mark.parametrize("kind", KINDS)
def test_a_side_under_the_least_is_refused_for_every_kind(kind: str) -> None:
    assert refusal_of(KINDS[kind], Limits(min_side_px=41)).code == "too_small"


def test_our_pixel_limit_holds_whatever_pillows_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code in the process may set Pillow's global limit to anything."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    decode_pixels(KINDS["jpeg"], Limits())
    decode_pixels(KINDS["png"], Limits())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refusal_of(KINDS["png"], Limits(max_pixels=100)).code == "too_many_pixels"


@pytest.mark.filterwarnings("error")
def test_a_warning_of_pillow_that_is_made_an_error_is_still_an_image_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 56 - 1)  # its TIFF decoder then warns
    assert refusal_of(KINDS["tiff lzw"]).code == "corrupt"


def test_pillows_globals_are_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for data in KINDS.values():
        decode_pixels(data, Limits())
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_no_memory_is_told_from_a_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    assert refusal_of(KINDS["bmp"]).code == "out_of_memory"


def test_a_run_length_coded_bmp_is_refused() -> None:
    """Pillow decodes it run by run in Python: 20 MB of runs held every thread up for 18 s."""
    data = bytearray(KINDS["bmp palette"])
    data[30:34] = (1).to_bytes(4, "little")  # BI_RLE8
    assert refusal_of(bytes(data)).code == "unsupported_format"


def _refused_elsewhere(data: bytes) -> ImageError:
    return refusal_of(data)


def test_an_error_crosses_from_one_process_to_another() -> None:
    error = pickle.loads(pickle.dumps(refusal_of(b"hello")))  # noqa: S301  our own bytes
    assert (error.code, type(error)) == ("unsupported_format", ImageError)
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(_refused_elsewhere, b"").result().code == "empty"
