"""What ``evaluate`` measures beside the families of a split."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, Part, Share

# One change of a picture: a name and its strength, such as jpeg75 or resize0.5.
OPERATION = re.compile(r"(?P<name>jpeg|webp|blur|resize|margin|longer)(?P<value>\d+(?:\.\d+)?)")
_CHANGES = (
    "jpeg95",
    "jpeg90",
    "jpeg75",
    "jpeg50",
    "jpeg30",
    "webp90",
    "webp75",
    "webp50",
    "blur0.5",
    "blur1",
    "blur2",
    "resize0.5",
    "resize0.75",
    "resize1.5",
    "resize0.5+jpeg75",
    "jpeg75+resize0.75+jpeg90",
    "margin0.03+resize0.8+jpeg85",  # a screenshot: cut, shown smaller, saved again
)


class EvaluationPairsConfig(Part):
    """Photographs beside their own regenerations, as ``python -m trainer fakes`` writes them."""

    roots: tuple[Path, ...] = ()  # folders with a pairs.jsonl; none is data.pairs
    families: tuple[str, ...] = ()  # of regenerators; empty is all


class EvaluationConfig(Part):
    """What is measured, and how often it is resampled. Nothing here is seen by training."""

    resamples: Count = 1000  # of the bootstrap
    seed: int = 0  # of its draws
    changes: tuple[str, ...] = (
        _CHANGES  # robustness: docs/concepts/evaluation.md says what each does
    )
    robustness_per_folder: Annotated[int, Field(ge=0)] = 0  # images of a folder; 0 is all
    pairs: EvaluationPairsConfig = EvaluationPairsConfig()
    photo_like: tuple[str, ...] = ()  # generators whose pictures look like photographs
    photographs: tuple[str, ...] = ()  # the real folders beside them; empty is all of the split
    photo_like_px: Annotated[int, Field(ge=64)] = 512  # the longer side, of both classes
    out_of_domain: tuple[str, ...] = ()  # patterns of real folders of other kinds: alarms alone
    probe_limit: Share = 0.6  # balanced accuracy of a shortcut that makes an evaluation void
    strict: bool = False  # fail where an evaluation is void, in place of a warning
    attention_images: Annotated[int, Field(ge=0, le=16)] = 8

    @model_validator(mode="after")
    def _changes_known(self) -> Self:
        for change in self.changes:
            for step in change.split("+"):
                if OPERATION.fullmatch(step) is None:
                    raise ValueError(
                        f"unknown change {step!r}: use jpegQ, webpQ, blurSIGMA, resizeFACTOR, "
                        "marginSHARE or longerPX, joined by +"
                    )
        return self
