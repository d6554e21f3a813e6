"""What training needs of a frozen diffusion model, whatever its family."""

from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """A frozen diffusion model that says what noise it sees.

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
        """The noise that the model sees.

        Args:
            x_BCHW: crops [B, 3, H, W] in [-1, 1], after every augmentation.
            seeds_B: draw the injected noise of each crop, where the configuration injects any.

        Returns:
            eps [B, channels, H / stride, W / stride], fp32, without gradient, where x is.

        Raises:
            TeacherError: the crop does not fit the model.
        """
        ...
