"""How well a diffusion model finds noise that was added to pictures it never saw.

In: a network that predicts epsilon, its scheduler, crops in [-1, 1]. Out: the mean squared error
between the noise added at an index and the noise predicted; to predict zero gives 1. No errors.
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

_BATCH = 16
_SEED = 20_260  # the noise is the same at each measurement, so that two of them compare


@torch.no_grad()
def noise_error(network: nn.Module, scheduler: DDPMScheduler, x_BCHW: Tensor, index: int) -> float:
    """The error at one index, over all crops."""
    generator = torch.Generator().manual_seed(_SEED)
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
    total = 0.0
    for start in range(0, len(x_BCHW), _BATCH):
        x, noise = x_BCHW[start : start + _BATCH], noise_BCHW[start : start + _BATCH]
        x_t = scheduler.add_noise(x, noise, torch.full((len(x),), index))
        total += float((network(x_t, index).sample[:, :3] - noise).square().sum())
    return total / noise_BCHW.numel()
