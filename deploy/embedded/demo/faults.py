"""Records that are broken on purpose: each can never become a verdict.

In: addresses that answer "not there" or not at all. Out: :class:`Fault`, with the error code that
the dead letter must carry.
"""

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import Image

BOMB_SIDE_PX = 30_000  # 900 million pixels, from a file of 110 KB
NOISE_SIGMA = 64


@dataclass(frozen=True)
class Fault:
    """What is wrong with an event, and the code that says so.

    Exactly one of ``image`` (sent as the image's bytes), ``uri`` and ``value`` (sent as the whole
    record) is set.
    """

    name: str
    code: str
    image: bytes | None = None
    mime: str = "image/jpeg"
    uri: str | None = None
    value: bytes | None = None
    sha256: str | None = None


def faults(missing_uri: str, refusing_uri: str) -> tuple[Fault, ...]:
    """One of each kind."""
    jpeg = _noise_jpeg()
    return (
        Fault("truncated JPEG", "truncated", image=jpeg[: len(jpeg) * 3 // 5]),
        Fault("text file named .png", "unsupported_format", b"just a text file\n", "image/png"),
        Fault("decompression bomb", "too_many_pixels", _png_bomb(), "image/png"),
        Fault("dead link", "not_found", uri=missing_uri),
        Fault("dead host", "unreachable", uri=refusing_uri),
        Fault("malformed JSON", "malformed_json", value=b'{"specversion": "1.0", "id": "demo'),
        Fault("other bytes than announced", "sha256_mismatch", image=jpeg, sha256="0" * 64),
    )


def _noise_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((256, 256), NOISE_SIGMA).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _png_bomb() -> bytes:
    """A valid PNG, one bit a pixel, all black: a decoder that obeys it needs gigabytes."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    row = bytes(1 + BOMB_SIDE_PX // 8)
    compressor = zlib.compressobj(1)
    body = b"".join(compressor.compress(row) for _ in range(BOMB_SIDE_PX)) + compressor.flush()
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
