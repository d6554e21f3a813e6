"""PNG, GIF, TIFF, AVIF and WebP: what is dropped before decoding, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image

from engines.imaging.containers import (
    ImageError,
    Limits,
    canvas_size_px,
    orientation_of,
    read_avif,
    read_gif,
    read_png,
)
from engines.imaging.decode import decode_pixels
from engines.imaging.tiff import read_tiff
from tests.support.images import (
    before_image_data,
    encoded,
    every_kind,
    picture,
    png_chunk,
    with_orientation,
)

KINDS = every_kind()
CROWD = 100_000


def code_of(data: bytes, limits: Limits | None = None) -> str:
    """The code that the upload is refused with."""
    with pytest.raises(ImageError) as refusal:
        decode_pixels(data, limits or Limits())
    return refusal.value.code


def same_pixels(one: bytes, other: bytes) -> None:
    """Both files decode to the same pixels."""
    pixels_HWC = decode_pixels(one, Limits())[1]
    np.testing.assert_array_equal(pixels_HWC, decode_pixels(other, Limits())[1])


# --- PNG


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_text_bomb_in_a_png_is_never_inflated(kind: bytes) -> None:
    bomb = b"name\0\0" + zlib.compress(bytes(100 * 1024 * 1024), 9)
    same_pixels(before_image_data(KINDS["png"], png_chunk(kind, bomb)), KINDS["png"])


def test_a_long_honest_text_does_not_cost_the_image_its_verdict() -> None:
    """Generators store whole workflows beside the image; Pillow refuses over a megabyte."""
    text = b"workflow\0\0\0\0\0" + b"{}" * 2_000_000
    same_pixels(before_image_data(KINDS["png"], png_chunk(b"iTXt", text)), KINDS["png"])


@pytest.mark.parametrize("kind", [b"tEXt", b"abCd", b"IDAT", b"tIME"])
@pytest.mark.timeout(10)
def test_empty_chunks_without_end_are_refused(kind: bytes) -> None:
    crowd = png_chunk(kind, b"") * CROWD
    assert code_of(before_image_data(KINDS["png"], crowd)) == "too_many_parts"


def test_nothing_after_the_end_of_a_png_is_read() -> None:
    data = encoded(picture(), "PNG")
    assert read_png(data + png_chunk(b"abCd", b"") * CROWD).data == data


def test_a_chunk_that_lies_about_its_length_runs_to_the_end_of_the_file() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    same_pixels(bytes(data), encoded(picture(), "PNG"))  # all that makes pixels is there
    assert code_of(bytes(data[:-40])) == "truncated"


def test_a_png_that_claims_a_gigapixel_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))
    )
    assert code_of(data) == "too_many_pixels"


# --- GIF


def gif_with(extension: bytes) -> bytes:
    """A GIF with blocks before its first frame."""
    data = read_gif(KINDS["gif"]).data
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + extension + data[start:]


def test_the_blocks_before_a_gifs_first_frame_are_dropped() -> None:
    comments = b"\x21\xfe\x05hello\x00" * 3 + b"\x21\xff\x0bXMP DataXMP\x03abc\x00"
    assert read_gif(gif_with(comments)).data == gif_with(b"")


def test_the_control_block_of_the_first_frame_is_kept() -> None:
    palette = picture().quantize(8)
    data = encoded(palette, "GIF", transparency=palette.getpixel((0, 0)))
    assert decode_pixels(data, Limits())[1][0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("block", [b"\x21\xfe\x00", b"\x21\x55\x00", b"\x21\xfe\x01a\x00"])
@pytest.mark.timeout(10)
def test_empty_gif_blocks_without_end_are_refused(block: bytes) -> None:
    assert code_of(gif_with(block * CROWD)) == "too_many_parts"
    assert code_of(gif_with(b"\x21\xfe" + b"\x01a" * CROWD + b"\x00")) == "too_many_parts"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GIF89a", "truncated"),
        (b"GIF89a" + bytes(7) + b";", "truncated"),
        (b"GIF89a" + bytes(7) + b"?", "corrupt"),
    ],
)
def test_a_gif_without_an_image_is_refused(data: bytes, code: str) -> None:
    assert code_of(data) == code


# --- TIFF


def test_a_tiff_keeps_its_pixels_and_loses_the_rest() -> None:
    data = encoded(picture(), "TIFF", exif=with_orientation(6), icc_profile=b"p" * 5000)
    container = read_tiff(data)
    assert container.orientation == 6
    with Image.open(io.BytesIO(container.data)) as image:
        assert not {34675, 274} & set(image.tag_v2)  # type: ignore[attr-defined]  # a TIFF's


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_decodes_as_it_would_whole(mode: str, compression: str) -> None:
    image = Image.new("I;16", (40, 30), 4660) if mode == "I;16" else picture(30, 40)
    image = image if mode in ("RGB", "I;16", "LAB") else image.convert(mode)
    data = encoded(image, "TIFF", compression=compression)
    container = read_tiff(data)
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(container.data)) as plain:
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(whole))


@pytest.mark.parametrize("compression", ["jpeg", "lzma", "zstd"])
def test_a_tiff_of_another_compression_is_refused(compression: str) -> None:
    """29 KB of a TIFF whose strips share one JPEG of 90 scans took 6 s."""
    assert code_of(encoded(picture(), "TIFF", compression=compression)) == "unsupported_format"


def tiff(*entries: tuple[int, int, int, int], body: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of these (tag, type, count, value) entries, and a body that begins at 1024."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in entries
    )
    return (head + directory).ljust(1024, b"\0") + body


GREY = ((256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_made_by_hand_decodes_in_either_byte_order(order: str) -> None:
    body = bytes(range(256)) * 4
    data = tiff(*GREY, (273, 4, 1, 1024), (279, 4, 1, 1024), body=body, order=order)
    pixels_HWC = decode_pixels(data, Limits())[1]
    assert pixels_HWC[..., 0].tobytes() == body


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ((*GREY, (279, 4, 1, 1024)), "corrupt"),  # no strips
        ((*GREY, (273, 4, 1, 1024)), "corrupt"),  # of no known length
        ((*GREY, (273, 4, 1, 1024), (279, 4, 1, 0)), "corrupt"),
        ((*GREY, (273, 4, 1, 1024), (278, 4, 1, 0), (279, 4, 1, 1024)), "corrupt"),
        ((*GREY, (273, 4, 1, 1024), (279, 4, 1, 9999)), "truncated"),
        ((*GREY, (273, 4, 70_000, 1024), (279, 4, 70_000, 1024)), "too_many_parts"),
        ((*GREY, (273, 99, 1, 1024), (279, 4, 1, 1024)), "corrupt"),  # of an unknown type
        (((256, 3, 1, 0), *GREY[1:], (273, 4, 1, 1024), (279, 4, 1, 1024)), "corrupt"),
        (((256, 3, 0, 0), *GREY[1:], (273, 4, 1, 1024), (279, 4, 1, 1024)), "corrupt"),
    ],
)
def test_a_tiff_directory_that_makes_no_sense_is_refused(
    entries: tuple[tuple[int, int, int, int], ...], code: str
) -> None:
    assert code_of(tiff(*entries, body=bytes(1024))) == code


def test_strips_that_overlap_are_refused() -> None:
    """Each would be decoded anew, from the same megabytes."""
    rows = 32
    offsets = struct.pack(f"<{rows}I", *[1024] * rows)
    sizes = struct.pack(f"<{rows}I", *[2000] * rows)
    strips = ((273, 4, rows, 1024), (278, 3, 1, 1), (279, 4, rows, 1024 + 4 * rows))
    assert code_of(tiff(*GREY, *strips, body=offsets + sizes + bytes(2000))) == "truncated"


def test_more_strips_than_the_size_asks_for_are_refused() -> None:
    """Two strips of 32 rows for 32 rows; thousands would each be drawn over the last."""
    body = struct.pack("<4I", 1100, 1200, 100, 100) + bytes(500)
    strips = ((273, 4, 2, 1024), (278, 3, 1, 32), (279, 4, 2, 1032))
    with pytest.raises(ImageError, match="2 strips where the size asks for 1"):
        read_tiff(tiff(*GREY, *strips, body=body))


def test_a_bigtiff_is_refused() -> None:
    assert code_of(encoded(picture(), "TIFF", big_tiff=True)) == "unsupported_format"


# --- AVIF and WebP


def test_a_hostile_exif_block_in_an_avif_is_never_parsed() -> None:
    """Thousands of entries that each point at the whole block would be copied out of it."""
    entry = struct.pack("<HHII", 700, 1, 500_000, 8)
    exif = b"II*\0" + struct.pack("<IH", 8, 60_000) + entry * 60_000
    with pytest.warns(UserWarning, match="EXIF"):  # Pillow parses it even to write it
        data = encoded(picture(), "AVIF", exif=exif)
    with AvifImagePlugin.AvifImageFile(io.BytesIO(read_avif(data).data)) as image:
        assert "exif" not in image.info
    same_pixels(data, encoded(picture(), "AVIF"))


@pytest.mark.parametrize(
    "data",
    [KINDS["webp"], KINDS["webp lossless"], KINDS["webp alpha"], encoded(picture(), "WEBP")],
)
def test_the_canvas_of_a_webp_is_known_before_it_is_opened(data: bytes) -> None:
    assert canvas_size_px(data) == (56, 40)


def test_a_webp_that_claims_a_huge_canvas_is_not_even_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The decoder would allocate the canvas, twice."""

    def opened(_: bytes) -> None:
        pytest.fail("the decoder was opened")

    monkeypatch.setattr("PIL.WebPImagePlugin._webp.WebPAnimDecoder", opened)
    data = bytearray(KINDS["webp"])
    assert data[12:16] == b"VP8X"
    data[24:30] = 2 * (9_999).to_bytes(3, "little")
    assert code_of(bytes(data)) == "too_many_pixels"


@pytest.mark.parametrize("data", [b"", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPABCD" + bytes(20)])
def test_a_webp_without_a_first_chunk_has_no_known_canvas(data: bytes) -> None:
    assert canvas_size_px(data) is None


# --- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_in_either_byte_order(orientation: int) -> None:
    for mark, order in ((b"II*\0", "<"), (b"MM\0*", ">")):
        entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
        other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 99)
        block = mark + struct.pack(f"{order}IH", 8, 2) + other + entry
        assert orientation_of(block) == orientation
        assert orientation_of(b"Exif\0\0" + block) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_means_upright(orientation: int) -> None:
    assert orientation_of(struct.pack("<4sIHHHIH", b"II*\0", 8, 1, 0x0112, 3, 1, orientation)) == 1


@pytest.mark.parametrize(
    "block", [b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", bytes(50)]
)
def test_an_exif_block_that_cannot_be_read_means_upright(block: bytes) -> None:
    assert orientation_of(block) == 1
