"""How a small autoencoder comes to be: trained on regions of photographs.

In: regions uint8 [N, S, S, 3]. Out: its weights in a file. Errors: ``RegeneratorError`` where the
loss is not a number.

The loss is the mean absolute error of the picture, of its differences between neighbours, and of the
log amplitudes of its patches' spectra, whatever their phases, and of its coarse colours. The second
keeps edges, the third texture: an absolute error alone draws the mean of all that could have been
there, which is a blur. The last is for a start in colour: most of the other errors are those of
brightness, and for thousands of steps all was drawn in grey.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.fakes import AutoencoderConfig
from trainer.fakes.autoencoder import Autoencoder
from trainer.fakes.regenerator import RegeneratorError

_CROP_PX = 64
_EDGE_WEIGHT = 1.0
_TEXTURE_WEIGHT = 0.02
_COLOUR_WEIGHT = 2.0
_COARSE_PX = 8
_PATCH_PX = 16
_FLOOR = 0.02  # of an amplitude, about one level of 255 a patch: below it is rounding
_CLIP = 1.0  # of the gradient's norm
Notify = Callable[[str], None]


def train_autoencoder(
    config: AutoencoderConfig, region_NHWC: NDArray[np.uint8], path: Path, notify: Notify
) -> None:
    """Train, and write the weights whole or not at all."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = Autoencoder(config.upsampling, config.factor, config.width)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps)
    random = np.random.default_rng(config.seed)
    for step in range(config.steps):
        x_BCHW = _batch(region_NHWC, config.batch, random)
        loss = _loss(network(x_BCHW), x_BCHW)
        if not math.isfinite(loss.item()):
            raise RegeneratorError(
                f"{config.name}: the loss is not finite at step {step}; lower lr"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            notify(f"{config.name}: step {step + 1} of {config.steps}, loss {loss.item():.4f}")
    _refuse_unlearnt(network, _batch(region_NHWC, 64, random), config)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(network.state_dict(), partial)
    partial.replace(path)


def _loss(drawn_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    edges = [
        functional.l1_loss(drawn_BCHW.diff(dim=axis), x_BCHW.diff(dim=axis)) for axis in (2, 3)
    ]
    texture = functional.l1_loss(_amplitudes(drawn_BCHW), _amplitudes(x_BCHW))
    picture = functional.l1_loss(drawn_BCHW, x_BCHW)
    coarse = [functional.avg_pool2d(_colour(one), _COARSE_PX) for one in (drawn_BCHW, x_BCHW)]
    colour = functional.l1_loss(coarse[0], coarse[1])
    detail = _EDGE_WEIGHT * (edges[0] + edges[1]) + _TEXTURE_WEIGHT * texture
    return picture + detail + _COLOUR_WEIGHT * colour


def _colour(x_BCHW: Tensor) -> Tensor:
    """What differs from grey."""
    return x_BCHW - x_BCHW.mean(dim=1, keepdim=True)


def _amplitudes(x_BCHW: Tensor) -> Tensor:
    """Log amplitudes of the spectra of patches; what is in phase with what is left open."""
    patches = x_BCHW.unfold(2, _PATCH_PX, _PATCH_PX).unfold(3, _PATCH_PX, _PATCH_PX)
    return torch.log(torch.fft.rfft2(patches, norm="ortho").abs() + _FLOOR)


@torch.no_grad()
def _refuse_unlearnt(network: Autoencoder, x_BCHW: Tensor, config: AutoencoderConfig) -> None:
    """A decoder that draws flat or grey teaches a detector that what is flat or grey is generated."""
    drawn_BCHW = network(x_BCHW)
    flat_BCHW = x_BCHW.mean(dim=(2, 3), keepdim=True).expand_as(x_BCHW)
    for what, drawn, instead, aim in (
        ("picture", drawn_BCHW, flat_BCHW, x_BCHW),
        ("colour", _colour(drawn_BCHW), torch.zeros_like(x_BCHW), _colour(x_BCHW)),
    ):
        error, worst = (functional.l1_loss(one, aim).item() for one in (drawn, instead))
        if error > config.max_error * worst:
            raise RegeneratorError(
                f"{config.name} learnt too little of the {what}: its error is {error:.4f}, that of "
                f"drawing none {worst:.4f}: raise steps, lower lr, or allow it by max_error"
            )


def _batch(region_NHWC: NDArray[np.uint8], size: int, random: np.random.Generator) -> Tensor:
    last = region_NHWC.shape[1] - _CROP_PX
    crops = []
    for index in random.integers(len(region_NHWC), size=size):
        top, left = random.integers(0, last + 1, size=2)
        crops.append(region_NHWC[index, top : top + _CROP_PX, left : left + _CROP_PX])
    x_BHWC = torch.from_numpy(np.stack(crops))
    return x_BHWC.permute(0, 3, 1, 2).float() / 255
