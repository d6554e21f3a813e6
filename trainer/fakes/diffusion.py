"""Content-matched fakes by a diffusion model: noise is put on a photograph, and taken off again.

In: a diffusers folder or hub id, of any family that can be a teacher. Out: a regenerator. Errors:
``RegeneratorError``, ``TeacherError``.

As SDEdit does it (Meng et al., ICLR 2022): the photograph is taken some way into the forward process
and brought back by the model, told nothing of what it shows. What the noise hid, it draws itself, as
it draws a picture of its own; the rest stays where it was. The way back is without new noise: the clean
picture that a prediction means, with the noise that it means at the next step's strength. That is DDIM
(Song et al., ICLR 2021), and for flow matching the step of Euler. Samplers of diffusers spread their times
over a whole schedule, so that a few steps from a given strength cannot be asked of them exactly.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.config.fakes import DiffusionConfig
from trainer.fakes.regenerator import RegeneratorError, from_unit, random_of, to_unit
from trainer.teachers.opening import DiffusionModel, open_model


class Redrawer:
    """A diffusion model that draws a photograph anew, on a GPU where there is one."""

    def __init__(self, config: DiffusionConfig) -> None:
        model = open_model(config.source, config.variant, decodes=True)
        if model.space.stride == 1 and config.strength_min == 0:
            raise RegeneratorError(
                f"{config.name}: a model of pixels changes nothing at strength 0, and a photograph "
                "would be called a fake: raise strength_min"
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
        """Redraw one picture; how far it goes and its noise are drawn by its digest."""
        self._refuse_large(pixels_HWC)
        random = random_of(pixels_HWC)
        strength = random.uniform(self._config.strength_min, self._config.strength_max)
        x_0_BCHW = self._model.space.encode(to_unit(pixels_HWC).to(self._device) * 2 - 1)
        field = random.standard_normal(tuple(x_0_BCHW.shape), dtype=np.float32)
        noise_BCHW = torch.from_numpy(field).to(self._device)
        redrawn_BCHW = redrawn(self._model, x_0_BCHW, noise_BCHW, strength, self._config.steps)
        return from_unit((self._model.space.decode(redrawn_BCHW).cpu() + 1) / 2)

    def _refuse_large(self, pixels_HWC: NDArray[np.uint8]) -> None:
        largest = self._model.network.largest
        side_px = max(pixels_HWC.shape[:2])
        if largest is not None and side_px > largest * self._model.space.stride:
            raise RegeneratorError(
                f"{self._config.name} takes no more than {largest * self._model.space.stride} px, "
                f"a region has {side_px}: lower photographs.region_px"
            )


def redrawn(
    model: DiffusionModel, x_0_BCHW: Tensor, noise_BCHW: Tensor, strength: float, steps: int
) -> Tensor:
    """Into the forward process and back.

    Args:
        model: what takes the noise off.
        x_0_BCHW: in its space, without noise.
        noise_BCHW: what is put on it, of the same shape.
        strength: how far into the schedule, as a share of it; 0 gives ``x_0_BCHW`` back.
        steps: of the way back.
    """
    if strength == 0:
        return x_0_BCHW
    way = [model.process(index) for index in way_back(model.steps, strength, steps)]
    x_BCHW = way[0].noisy(x_0_BCHW, noise_BCHW)
    for process, after in zip(way, [*way[1:], None], strict=True):
        prediction_BCHW = model.network.predict(x_BCHW, process.time)
        # A network that learnt its variance has twice the channels: the first half is the noise.
        eps_BCHW = process.eps(prediction_BCHW[:, : model.space.channels], x_BCHW)
        clean_BCHW = process.clean(x_BCHW, eps_BCHW)
        x_BCHW = after.noisy(clean_BCHW, eps_BCHW) if after else clean_BCHW
    return x_BCHW


def way_back(schedule_steps: int, strength: float, steps: int) -> list[int]:
    """Which steps of a schedule are taken, the noisiest first; where there are fewer, all of them."""
    # At the very last step of flow matching nothing is left of the picture, and nothing to bring back.
    first = min(round(strength * (schedule_steps - 1)), schedule_steps - 2)
    spread = np.linspace(first, 0, steps + 1)[:-1].round().astype(int)
    return list(dict.fromkeys(spread.tolist()))
