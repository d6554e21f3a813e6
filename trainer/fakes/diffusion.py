"""Regeneration by a diffusion model: noise is added to a photograph and removed again.

The photograph is taken some way into the forward process and brought back without a prompt (SDEdit,
Meng et al., ICLR 2022). Detail that the noise hid is the model's own. The way back is deterministic:
the clean picture that a prediction means, plus the predicted noise at the next step's strength. That
is DDIM (Song et al., ICLR 2021), and Euler's step for flow matching. The samplers of diffusers spread
their steps over a whole schedule and cannot start at an exact strength.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.config import DiffusionConfig
from trainer.fakes.regenerators import RegeneratorError, from_unit, random_of, to_unit
from trainer.teachers.opening import DiffusionModel, open_model


class Redrawer:
    """A diffusion model that regenerates photographs, on a GPU if there is one.

    Raises:
        RegeneratorError: the configuration would leave a photograph unchanged.
        TeacherError: the model cannot be opened.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        model = open_model(config.source, config.variant, decodes=True)
        if model.space.stride == 1 and config.strength_min == 0:
            raise RegeneratorError(
                f"{config.name}: a pixel-space model changes nothing at strength 0, so a photograph "
                "would be labelled fake: raise strength_min"
            )
        self._config, self._model = config, model
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for part in (model.network, model.space):
            if isinstance(part, nn.Module):
                part.to(self._device).eval().requires_grad_(requires_grad=False)
        self.multiple_px = model.network.multiple * model.space.stride
        way = f"{config.strength_min:g}-{config.strength_max:g}-{config.steps}"
        self.digest = f"{model.name}-sdedit-{way}"

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Redraw a picture; its digest draws the strength and the noise."""
        largest = self._model.network.largest
        if largest is not None and max(pixels_HWC.shape[:2]) > largest * self._model.space.stride:
            raise RegeneratorError(
                f"{self._config.name} takes at most {largest * self._model.space.stride} px: "
                "lower photographs.region_px"
            )
        random = random_of(pixels_HWC)
        strength = random.uniform(self._config.strength_min, self._config.strength_max)
        x_0_BCHW = self._model.space.encode(to_unit(pixels_HWC).to(self._device) * 2 - 1)
        field = random.standard_normal(tuple(x_0_BCHW.shape), dtype=np.float32)
        noise_BCHW = torch.from_numpy(field).to(self._device)
        redrawn_BCHW = redrawn(self._model, x_0_BCHW, noise_BCHW, strength, self._config.steps)
        return from_unit((self._model.space.decode(redrawn_BCHW).cpu() + 1) / 2)


def redrawn(
    model: DiffusionModel, x_0_BCHW: Tensor, noise_BCHW: Tensor, strength: float, steps: int
) -> Tensor:
    """Go into the forward process and back.

    Args:
        model: predicts the noise.
        x_0_BCHW: the picture in the model's space, without noise.
        noise_BCHW: the noise to add, of the same shape.
        strength: how far into the schedule, as a share of it; 0 returns ``x_0_BCHW``.
        steps: of the way back.
    """
    if strength == 0:
        return x_0_BCHW
    way = [model.process(index) for index in way_back(model.steps, strength, steps)]
    x_BCHW = way[0].noisy(x_0_BCHW, noise_BCHW)
    for process, after in zip(way, [*way[1:], None], strict=True):
        prediction_BCHW = model.network.predict(x_BCHW, process.time)
        # A network that predicts its variance too has twice the channels: the first half is noise.
        eps_BCHW = process.eps(prediction_BCHW[:, : model.space.channels], x_BCHW)
        clean_BCHW = process.clean(x_BCHW, eps_BCHW)
        x_BCHW = after.noisy(clean_BCHW, eps_BCHW) if after else clean_BCHW
    return x_BCHW


def way_back(schedule_steps: int, strength: float, steps: int) -> list[int]:
    """The indices to visit, the noisiest first; a short schedule has fewer than ``steps``."""
    # At the last step of flow matching nothing is left of the picture.
    first = min(round(strength * (schedule_steps - 1)), schedule_steps - 2)
    spread = np.linspace(first, 0, steps + 1)[:-1].round().astype(int)
    return list(dict.fromkeys(spread.tolist()))
