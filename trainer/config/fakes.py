"""Which photographs are regenerated, by which families: the file of ``python -m trainer fakes``.

In: the bytes of a TOML file. Out: ``FakesConfig``. Errors: ``ConfigError``.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, NotNegative, Part, Positive

Name = Annotated[str, Field(pattern=r"[a-z0-9][a-z0-9_.-]*")]


class PhotographsConfig(Part):
    """The photographs, and which part of each is regenerated."""

    roots: tuple[Path, ...] = ()
    folders: tuple[str, ...] = ("*",)  # of real/, as in the splits of a training run
    exclude: tuple[str, ...] = ()
    images_per_folder: Count = 1000  # evenly spread by file name
    region_px: Annotated[int, Field(ge=64, multiple_of=16)] = 224
    # A photograph that is large enough may be shrunk by one of these first (drawn by its digest):
    # the traces of its own JPEG weaken, as they do in pictures that were shared.
    scales: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)
    # Which regions of a photograph: 0 is its centre, 1 to 4 are its corners, each at the next of the scales.
    regions: Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Field(min_length=1)] = (0,)


class TaefConfig(Part):
    """The tiny autoencoder of FLUX.2's latents; they may be given noise before they are decoded.

    What a diffusion model made was never a picture before: the decoder drew detail that it was
    not told. Noise in the latents makes it do so here.
    """

    kind: Literal["taef2"]
    name: Name
    weights: Path  # a folder with taef2_encoder.pth and taef2_decoder.pth
    latent_noise: NotNegative = 0.0  # at the most, in standard deviations of the picture's latents
    images: Count = 1_000_000


class SrganConfig(Part):
    """SRGAN or SRResNet, in Keras' format."""

    kind: Literal["srgan"]
    name: Name
    weights: str  # a file, or package:NAME/FILE
    images: Count = 1_000_000


class CycleGanConfig(Part):
    """CycleGAN's generator of nine blocks, in PyTorch's format."""

    kind: Literal["cyclegan"]
    name: Name
    weights: str  # a file, or package:NAME/FILE
    images: Count = 1_000_000


class RdnConfig(Part):
    """A residual dense network in TensorFlow.js' format; it enlarges by what its weights say."""

    kind: Literal["rdn"]
    name: Name
    weights: str  # a folder with model.json, or package:NAME/FOLDER
    images: Count = 1_000_000


class UpscalerConfig(Part):
    """A super-resolver in ncnn's format."""

    kind: Literal["ncnn"]
    name: Name
    param: str  # a file, or package:NAME/FILE
    factor: Annotated[int, Field(ge=2, le=8)] = 4
    pad_px: Annotated[int, Field(ge=0)] = 0  # what the network takes off each side of its input
    images: Count = 1_000_000


class DiffusionConfig(Part):
    """A diffusion model, which is given the photograph under noise and takes the noise off again."""

    kind: Literal["diffusion"]
    name: Name
    source: str  # a diffusers folder or hub id: whatever can be a teacher
    variant: str = ""  # of the weights' file names, such as fp16
    # How far into the schedule a photograph is taken, as a share of it; each one's own is drawn
    # between the two. With latents 0 and 0 leaves the autoencoder alone at work.
    strength_min: Annotated[float, Field(ge=0, lt=1)] = 0.1
    strength_max: Annotated[float, Field(ge=0, lt=1)] = 0.3
    steps: Count = 10  # of the way back
    images: Count = 1_000_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.strength_min > self.strength_max:
            raise ValueError("strength_min is over strength_max")
        return self


class AutoencoderConfig(Part):
    """A small autoencoder that is trained on the photographs themselves."""

    kind: Literal["autoencoder"]
    name: Name
    upsampling: Literal["nearest", "bilinear", "transposed", "pixel_shuffle"]
    factor: Literal[4, 8, 16]
    width: Count = 24
    steps: Count = 1500
    batch: Count = 16
    lr: Positive = 4e-3
    max_error: Positive = 0.5  # of the error of flat crops, and of grey ones; more is refused
    seed: int = 0
    images: Count = 1_000_000


# Whose weights somebody else has trained.
PublishedConfig = (
    TaefConfig | SrganConfig | CycleGanConfig | RdnConfig | UpscalerConfig | DiffusionConfig
)
FamilyConfig = Annotated[PublishedConfig | AutoencoderConfig, Field(discriminator="kind")]


class FakesConfig(Part):
    """A set of content-matched fakes."""

    threads: Count = 1
    photographs: PhotographsConfig = PhotographsConfig()
    families: Annotated[tuple[FamilyConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.name for one in self.families]
        if len(set(names)) < len(names):
            raise ValueError("two families have the same name")
        return self
