"""Where a diffusion model works: on pixels, or on the latents of its autoencoder.

In: crops [B, 3, H, W] in [-1, 1]. Out: what the model sees, [B, channels, H/stride, W/stride], and the
way back. Errors: ``TeacherError``.
"""

from typing import Protocol

import diffusers
from torch import Tensor, nn

from trainer.teachers.errors import TeacherError

RGB = 3


class Space(Protocol):
    """Of what the noise is."""

    channels: int
    stride: int

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Crops in [-1, 1] as the model sees them, without noise."""
        ...

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] on about [-1, 1]."""
        ...


class Pixels(nn.Module):
    """The crop itself."""

    channels, stride = RGB, 1

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """The same."""
        return x_BCHW

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """The same."""
        return x_0_BCHW


class Latents(nn.Module):
    """The mode of an autoencoder's posterior, shifted and scaled as its model was trained.

    Args:
        vae: the autoencoder.
        name: of the model, for messages.
        decodes: whether its decoder is kept: half of its weights.
    """

    def __init__(self, vae: "diffusers.AutoencoderKL", name: str, *, decodes: bool = False) -> None:
        super().__init__()
        if vae.config.latents_mean is not None:
            raise TeacherError(
                f"{name}: latents with a mean and a spread per channel are not supported: "
                "give a model whose VAE has a scaling_factor alone (Stable Diffusion, FLUX)"
            )
        if not decodes:
            vae.decoder = nn.Identity()
        self.vae, self._name, self._decodes = vae, name, decodes
        self.channels = int(vae.config.latent_channels)
        self.stride = 2 ** (len(vae.config.block_out_channels) - 1)
        self._shift = float(vae.config.shift_factor or 0.0)
        self._scale = float(vae.config.scaling_factor)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Latents [B, channels, H / stride, W / stride], fp32."""
        mode_BCHW: Tensor = self.vae.encode(x_BCHW).latent_dist.mode()
        return (mode_BCHW.float() - self._shift) * self._scale

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], by a decoder that was kept."""
        if not self._decodes:
            raise TeacherError(
                f"{self._name} was opened without its decoder: open it with decodes=True"
            )
        decoded_BCHW: Tensor = self.vae.decode(x_0_BCHW / self._scale + self._shift).sample
        return decoded_BCHW.float()
