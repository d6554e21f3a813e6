"""What a frozen diffusion model consists of, whatever its family."""

from typing import Protocol

from torch import Tensor

from trainer.errors import TrainerError


class TeacherError(TrainerError):
    """A teacher that cannot be loaded or does not fit; the message says what to do."""


class Teacher(Protocol):
    """A frozen diffusion model that predicts the noise of crops.

    Attributes:
        teacher_id: a name, the digest of the weights and the options that change a target: two
            teachers with the same id give the same targets.
        channels: of a target: 3 in pixel space, 4 or 16 for latents.
        stride: pixels of the crop to a place of the target: 1 in pixel space, 8 for most latents.
    """

    teacher_id: str
    channels: int
    stride: int

    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """Predict the noise of crops.

        Args:
            x_BCHW: crops [B, 3, H, W] in [-1, 1], after every augmentation.
            seeds_B: draw the injected noise of each crop, if the configuration injects any.

        Returns:
            eps [B, channels, H / stride, W / stride], fp32, without gradient, on x's device.

        Raises:
            TeacherError: the crop does not fit the model.
        """
        ...


class Network(Protocol):
    """A denoising network with its conditioning; sides are in places of its space."""

    @property
    def multiple(self) -> int:
        """Sides must be multiples of this."""
        ...

    @property
    def largest(self) -> int | None:
        """The longest side that it takes, or None for any."""
        ...

    @property
    def native(self) -> int | None:
        """The side of a tile unless the configuration has one, or None for the whole crop."""
        ...

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Its prediction, [B, channels or more, H, W]."""
        ...


class Space(Protocol):
    """Where a diffusion model works: on pixels, or on the latents of its autoencoder."""

    channels: int
    stride: int

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Crops in [-1, 1] -> [B, channels, H / stride, W / stride], without noise."""
        ...

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """The inverse: pictures [B, 3, H, W] on about [-1, 1]."""
        ...


class Process(Protocol):
    """One step of a forward process."""

    @property
    def time(self) -> float:
        """The time input of the network: an array index, or 1,000 sigma."""
        ...

    @property
    def label(self) -> str:
        """What changes a target beside the weights; part of the teacher's id."""
        ...

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        """x_t of x and known noise, by the scheduler's own function."""
        ...

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        """The epsilon that a prediction at x_t means."""
        ...

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        """The x from which ``noisy`` makes x_t with this noise."""
        ...
