"""How much of the teacher's noise the student has learnt, on pictures it never trained on.

In: pictures of the validation split. Out: the explained variance. No errors of its own.
"""

from collections.abc import Sequence

import numpy as np
import torch

from trainer.config import Config
from trainer.data.augment import center_crop
from trainer.data.dataset import Picture, evenly
from trainer.detector import Detector, Windows, cut
from trainer.training.targets import Statistics, TargetStore, explained_variance

_CROPS = 48  # evenly spread over the split, real and generated


class HeldOut:
    """Fixed crops with their targets."""

    def __init__(self, pictures: Sequence[Picture], targets: TargetStore, config: Config) -> None:
        chosen = evenly(pictures, _CROPS)
        crop_px, side_px = config.train.crop_px, config.window_px
        corner = (crop_px - side_px) // 2 // 8 * 8
        self._image_BHWC = np.stack([center_crop(one.pixels_HWC, crop_px) for one in chosen])
        self._windows = Windows(((corner, corner),) * len(chosen), side_px)
        inside = slice(corner, corner + side_px)
        self._raw_BCHW = targets.raw(self._image_BHWC[:, inside, inside])

    @torch.inference_mode()
    def explained(self, detector: Detector, statistics: Statistics) -> float:
        """1 - MSE / variance of the raw noise, over all crops."""
        detector.eval()
        device = detector.classifier.weight.device
        image_BHWC = torch.from_numpy(self._image_BHWC).to(device)
        whole = detector.predict_noise(image_BHWC).float().cpu()
        scale = torch.tensor(statistics.std_C)[:, None, None]
        predicted = cut(whole, self._windows, detector.target.stride) * scale
        predicted = predicted + torch.tensor(statistics.mean_C)[:, None, None]
        return explained_variance([predicted], [self._raw_BCHW])
