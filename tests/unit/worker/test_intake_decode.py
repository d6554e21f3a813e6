"""Bytes become crops, or a Poison that says why not."""

import hashlib

import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import DecodedImage, ImageError, Limits
from tests.unit.worker.samples import event, jpeg_bytes
from worker.errors import Poison, Retryable
from worker.intake import checked_sha256, decode, decode_pixels, limits_of
from worker.settings import DecodeSettings

SPEC = PreprocessSpec(version="1", crop_policy="grid", crop_px=32, max_crops=2)


def test_an_image_becomes_crops() -> None:
    """As the bundle wants them."""
    found = decode(jpeg_bytes(32, 64), SPEC, Limits())
    assert found.image_NHWC.shape == (2, 32, 32, 3)
    assert (found.mime, found.width_px, found.height_px) == ("image/jpeg", 64, 32)


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (b"", Limits(), "empty"),
        (b"plain text, named .png", Limits(), "unsupported_format"),
        (jpeg_bytes()[:-200], Limits(), "truncated"),
        (jpeg_bytes(), Limits(max_bytes=100), "too_many_bytes"),
        (jpeg_bytes(), Limits(max_pixels=100), "too_many_pixels"),
        (jpeg_bytes(8, 8), Limits(), "too_small"),
    ],
)
def test_what_is_no_image_is_poison_at_decode(data: bytes, limits: Limits, code: str) -> None:
    """The code is the preprocessing's own, the message is kept."""
    with pytest.raises(Poison) as caught:
        decode(data, SPEC, limits)
    assert (caught.value.stage, caught.value.code) == ("decode", code)
    assert caught.value.message


def test_the_caps_are_the_settings() -> None:
    """Each under its own name."""
    settings = DecodeSettings(max_bytes=1, max_pixels=2, max_jpeg_scans=3, min_side_px=4)
    assert limits_of(settings) == Limits(max_bytes=1, max_pixels=2, max_jpeg_scans=3, min_side_px=4)
    assert limits_of(DecodeSettings()) == Limits(), "the worker's defaults are the trainer's"


def test_the_digest_is_computed_and_compared() -> None:
    """Other bytes than promised are not what the sender meant to have judged."""
    digest = hashlib.sha256(b"image").hexdigest()
    for promised in (None, digest, digest.upper()):
        assert checked_sha256(event(sha256=promised), b"image") == digest
    with pytest.raises(Poison) as caught:
        checked_sha256(event(sha256="0" * 64), b"image")
    assert (caught.value.stage, caught.value.code) == ("fetch", "sha256_mismatch")
    assert digest in caught.value.message


def test_short_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the machine's fault: two more attempts, then a dead letter that counts them."""
    pauses: list[float] = []

    def short(*_: object) -> DecodedImage:
        raise ImageError("out_of_memory", "no memory")

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 2:
            monkeypatch.undo()
        return False

    monkeypatch.setattr("worker.intake.decode_image", short)
    assert decode_pixels(jpeg_bytes(), Limits(), pause).mime == "image/jpeg"
    assert pauses == [1.0, 2.0]
    monkeypatch.setattr("worker.intake.decode_image", short)
    with pytest.raises(Poison) as caught:
        decode_pixels(jpeg_bytes(), Limits(), lambda _: False)
    assert (caught.value.code, caught.value.attempts) == ("out_of_memory", 3)
    with pytest.raises(Retryable):
        decode_pixels(jpeg_bytes(), Limits(), lambda _: True)
