"""Whatever the bytes: an image, or an ImageError; never another exception."""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import ImageError, Limits, prepare
from tests.support.images import every_kind

SPEC = PreprocessSpec(version="1", crop_policy="grid", crop_px=24, max_crops=3)
LIMITS = Limits(max_pixels=1_000_000)  # a mutated header may claim any size
KINDS = every_kind()
SIGNATURES = sorted({data[:12] for data in KINDS.values()})


def is_prepared_or_refused(data: bytes) -> None:
    """Fails on any outcome but the two that are allowed."""
    try:
        prepared = prepare(data, SPEC, LIMITS)
    except ImageError:
        return
    assert prepared.image_NHWC.dtype == np.uint8
    assert 1 <= len(prepared.image_NHWC) <= SPEC.max_crops
    assert prepared.image_NHWC.shape[1:] == (24, 24, 3)
    assert prepared.width_px * prepared.height_px <= LIMITS.max_pixels


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    is_prepared_or_refused(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SIGNATURES), st.binary(max_size=400))
def test_any_bytes_after_a_known_signature(signature: bytes, data: bytes) -> None:
    is_prepared_or_refused(signature + data)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete"]),
        st.floats(0, 1),  # where, as a share of the file: headers and bodies alike
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """The file after the edits."""
    for action, share, new in edits:
        at = int(share * share * len(data))  # squared: most of what is parsed stands in front
        dropped = 0 if action == "insert" else len(new)
        data = data[:at] + (b"" if action == "delete" else new) + data[at + dropped :]
    return data


@settings(deadline=None, max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(KINDS)), EDITS)
@example("jpeg", [("replace", 0.0, b"\xff")])
def test_an_edited_image(kind: str, edits: list[tuple[str, float, bytes]]) -> None:
    is_prepared_or_refused(edited(KINDS[kind], edits))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(KINDS)), st.floats(0, 1))
def test_a_truncated_image(kind: str, share: float) -> None:
    is_prepared_or_refused(KINDS[kind][: int(share * len(KINDS[kind]))])


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS)), st.floats(0, 1))
def test_the_head_of_one_image_on_the_body_of_another(head: str, body: str, share: float) -> None:
    at = int(share * len(KINDS[head]))
    is_prepared_or_refused(KINDS[head][:at] + KINDS[body][at:])
