"""The networks of each family of diffusion models, conditioned on an empty prompt."""

import diffusers  # resolves its names when they are used: importing every family takes seconds
import torch
from torch import Tensor, nn

from trainer.errors import TeacherError

FLUX_PACK = 2  # FLUX packs squares of two by two latents into one token
_NO_GUIDANCE = 1.0


class Prompt(nn.Module):
    """The embedding of the empty prompt; its buffers follow the model to its device."""

    def __init__(self, token_NC: Tensor, pooled_C: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("token_NC", token_NC.float())
        self.register_buffer("pooled_C", None if pooled_C is None else pooled_C.float())

    def tokens(self, count: int) -> Tensor:
        """For each crop, [count, N, C]."""
        return self.get_buffer("token_NC").expand(count, -1, -1)

    def pooled(self, count: int) -> Tensor:
        """For each crop, [count, C]."""
        return self.get_buffer("pooled_C").expand(count, -1)


class Unconditional(nn.Module):
    """A pixel-space U-Net."""

    def __init__(self, network: "diffusers.UNet2DModel", name: str) -> None:
        super().__init__()
        if getattr(network, "class_embedding", None) is not None:
            raise TeacherError(f"{name} needs a class for each image: give an unconditional model")
        self.inner = network
        widths = network.config.block_out_channels
        self.multiple, self.largest = 2 ** (len(widths) - 1), None
        size = network.config.sample_size
        self.native = size if isinstance(size, int) else None

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Predict at x_t [B, 3, H, W] and an array index."""
        prediction: Tensor = self.inner(x_t_BCHW, int(time)).sample
        return prediction


class Conditional(nn.Module):
    """The latent U-Net of Stable Diffusion 1, 2 and XL."""

    multiple, largest, native = 1, None, None  # it pads its own skips

    def __init__(
        self, network: "diffusers.UNet2DConditionModel", prompt: Prompt, name: str
    ) -> None:
        super().__init__()
        config = network.config
        if config.class_embed_type is not None or config.num_class_embeds is not None:
            raise TeacherError(f"{name} needs a class for each image: give a text-to-image model")
        if config.addition_embed_type not in {None, "text_time"}:
            raise TeacherError(
                f"{name} needs {config.addition_embed_type!r}, which is not supported: "
                "give Stable Diffusion 1, 2 or XL"
            )
        self.inner, self.prompt = network, prompt
        # XL is conditioned on the size of the whole picture. A crop is native pixels of a large
        # picture; the crop's own size would mean a small picture that was scaled up.
        side_px = float(config.sample_size * 8)
        size = torch.tensor([[side_px, side_px, 0.0, 0.0, side_px, side_px]])
        self.register_buffer("size_1N", size, persistent=False)

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Predict at latents [B, 4, H, W] and an array index."""
        count = len(x_t_BCHW)
        added = None
        if self.inner.config.addition_embed_type == "text_time":
            size_1N = self.get_buffer("size_1N").expand(count, -1)
            added = {"text_embeds": self.prompt.pooled(count), "time_ids": size_1N}
        text = self.prompt.tokens(count)
        prediction: Tensor = self.inner(
            x_t_BCHW, int(time), encoder_hidden_states=text, added_cond_kwargs=added
        ).sample
        return prediction


class Sd3(nn.Module):
    """The transformer of Stable Diffusion 3."""

    native = None

    def __init__(self, network: "diffusers.SD3Transformer2DModel", prompt: Prompt) -> None:
        super().__init__()
        self.inner, self.prompt = network, prompt
        self.multiple = int(network.config.patch_size)
        self.largest = int(network.config.pos_embed_max_size) * self.multiple

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """The velocity at latents [B, 16, H, W] and 1,000 sigma."""
        count = len(x_t_BCHW)
        velocity: Tensor = self.inner(
            hidden_states=x_t_BCHW,
            timestep=torch.full((count,), time, device=x_t_BCHW.device),
            encoder_hidden_states=self.prompt.tokens(count),
            pooled_projections=self.prompt.pooled(count),
        ).sample
        return velocity


class Flux(nn.Module):
    """The transformer of FLUX.1, without guidance where it is distilled."""

    native, largest, multiple = None, None, FLUX_PACK

    def __init__(self, network: "diffusers.FluxTransformer2DModel", prompt: Prompt) -> None:
        super().__init__()
        self.inner, self.prompt = network, prompt

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """The velocity at latents [B, 16, H, W] and 1,000 sigma."""
        count, _, height, width = x_t_BCHW.shape
        device = x_t_BCHW.device
        text = self.prompt.tokens(count)
        guidance = None
        if self.inner.config.guidance_embeds:
            guidance = torch.full((count,), _NO_GUIDANCE, device=device)
        velocity: Tensor = self.inner(
            hidden_states=packed(x_t_BCHW),
            timestep=torch.full((count,), time / 1000, device=device),  # it multiplies by 1,000
            guidance=guidance,
            encoder_hidden_states=text,
            pooled_projections=self.prompt.pooled(count),
            txt_ids=torch.zeros(text.shape[1], 3, device=device),
            img_ids=places(height, width).to(device),
        ).sample
        return unpacked(velocity, height, width)


def packed(latent_BCHW: Tensor) -> Tensor:
    """Tokens [B, H/2 * W/2, 4 C]: each holds the four values of a channel, then the next's."""
    return nn.functional.pixel_unshuffle(latent_BCHW, FLUX_PACK).flatten(2).mT


def unpacked(token_BNC: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``packed``: [B, C, height, width]."""
    rows, columns = height // FLUX_PACK, width // FLUX_PACK
    map_BCHW = token_BNC.mT.reshape(len(token_BNC), -1, rows, columns)
    return nn.functional.pixel_shuffle(map_BCHW, FLUX_PACK)


def places(height: int, width: int) -> Tensor:
    """The position of each token, [H/2 * W/2, 3]: (0, row, column)."""
    rows = torch.arange(height // FLUX_PACK, dtype=torch.float32)
    columns = torch.arange(width // FLUX_PACK, dtype=torch.float32)
    grid = torch.meshgrid(torch.zeros(1), rows, columns, indexing="ij")
    return torch.stack(grid, dim=-1).reshape(-1, 3)
