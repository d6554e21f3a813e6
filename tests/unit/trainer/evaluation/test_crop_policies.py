"""A way to crop is named as a person writes it."""

import pytest

from engines.bundle.manifest import PreprocessSpec
from trainer.evaluation.compare import crops_name, parse_crops
from trainer.evaluation.scoring import EvaluationError


@pytest.mark.parametrize("text", ["center:224", "grid:96:4", "five_crop:96"])
def test_a_policy_is_named_as_it_is_asked_for(text: str) -> None:
    assert crops_name(parse_crops(text)) == text


def test_a_policy_that_takes_a_certain_number_needs_none() -> None:
    assert parse_crops("five_crop:96") == parse_crops("five_crop:96:5")
    assert parse_crops("five_crop:96").max_crops == 5
    assert parse_crops("grid:64:9") == PreprocessSpec(
        version="1", crop_policy="grid", crop_px=64, max_crops=9
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("grid:96", "max_crops: Input should be a valid integer"),
        ("grid:96:65", "less than or equal to 64"),
        ("grid:0:4", "greater than 0"),
        ("five_crop:96:4", "takes 5"),
        ("centre:224", "'center', 'grid' or 'five_crop'"),
        ("", "crop_px: Input should be a valid integer"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_ways_to_write_one(text: str, why: str) -> None:
    with pytest.raises(EvaluationError, match=r"unknown crops .*center:224, grid:96:4") as error:
        parse_crops(text)
    assert why in str(error.value)
