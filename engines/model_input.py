"""The parts of a manifest that say what a model takes: its input, and how an image becomes it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engines.fields import Mean3, Part, Std3

CropPolicy = Literal["center", "grid", "five_crop"]
MaxCrops = Annotated[int, Field(ge=1, le=64)]
# Of the policies that take a certain number.
_CROPS = {"center": 1, "five_crop": 5}


def crops_of(policy: str) -> int | None:
    """How many crops a policy takes of a picture; None where ``max_crops`` says it."""
    return _CROPS.get(policy)


def refuse_other_count(policy: CropPolicy, max_crops: int) -> None:
    """Raise ValueError where the policy takes another number of crops than ``max_crops`` says."""
    count = crops_of(policy)
    if count is not None and max_crops != count:
        raise ValueError(f"crop_policy {policy!r} takes {count}: set max_crops to {count}")


class InputSpec(Part):
    """The model's one input, raw uint8 pixels: the graph itself casts and normalises them.

    ``mean`` and ``std`` are on the 0..1 scale and recorded for the reader alone.
    """

    name: str = "image_NHWC"
    dtype: Literal["uint8"] = "uint8"
    layout: Literal["NHWC"] = "NHWC"
    colour_order: Literal["RGB"] = "RGB"
    height_px: Annotated[int, Field(gt=0)]
    width_px: Annotated[int, Field(gt=0)]
    batch_min: Literal[1] = 1
    batch_opt: Annotated[int, Field(ge=1)]
    batch_max: Annotated[int, Field(ge=1)]
    range_min: Literal[0] = 0
    range_max: Literal[255] = 255
    mean: Mean3
    std: Std3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.batch_min <= self.batch_opt <= self.batch_max:
            raise ValueError("batch_min <= batch_opt <= batch_max must hold")
        return self


class PreprocessSpec(Part):
    """How an image becomes crops; ``engines.preprocess`` follows it, for trainer and worker."""

    version: Annotated[str, Field(min_length=1)]
    crop_policy: CropPolicy
    crop_px: Annotated[int, Field(gt=0)]
    max_crops: MaxCrops = 1
    pad: Literal["reflect"] = "reflect"
    alpha_background: tuple[Literal[255], Literal[255], Literal[255]] = (255, 255, 255)

    @model_validator(mode="after")
    def _as_many_as_the_policy_takes(self) -> Self:
        refuse_other_count(self.crop_policy, self.max_crops)
        return self
