"""What the validation split says about weights: it chooses a run's step.

In: weights, and pictures and pairs that they were not trained on. Out: ``Verdict``. No errors of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.augment import center_crop
from trainer.data.dataset import Picture, evenly
from trainer.data.pairs import Pair
from trainer.detector import Detector, Windows, classifier, cut
from trainer.evaluation.metrics import SplitResult, evaluate_split, with_pairs
from trainer.training.targets import Statistics, TargetStore, explained_variance

_HELDOUT_CROPS = 48  # evenly spread over the split, real and generated


class HeldOut:
    """Fixed crops with their targets, which tell how much of the noise a detector has learnt."""

    def __init__(self, pictures: Sequence[Picture], targets: TargetStore, config: Config) -> None:
        chosen = evenly(pictures, _HELDOUT_CROPS)
        crop_px, side_px = config.train.crop_px, config.window_px
        corner = (crop_px - side_px) // 2 // 8 * 8
        self._image_BHWC = np.stack(
            [center_crop(picture.pixels_HWC, crop_px) for picture in chosen]
        )
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


@dataclass(frozen=True)
class Verdict:
    """The measurements of one detector.

    Attributes:
        report: figures of each generator, and the mean AUC by condition, pairs included.
        explained_variance: of the teacher's noise, on held-out crops; None without a teacher.
    """

    report: SplitResult
    explained_variance: float | None

    @property
    def auc(self) -> float:
        """The mean over all conditions, which chooses weights; 0 where a class is missing."""
        return fmean(self.report.mean_auc.values()) if self.report.mean_auc else 0.0


@dataclass(frozen=True)
class Validation:
    """The validation split.

    Attributes:
        pictures: whole pictures.
        pairs: photographs of the split with their regenerations; none unless ``train.validate_pairs``.
        heldout: crops with the teacher's noise; None without a teacher.
    """

    pictures: tuple[Picture, ...]
    pairs: tuple[Pair, ...] = ()
    heldout: HeldOut | None = None

    def verdict(
        self,
        weights: Mapping[str, Tensor],
        config: Config,
        statistics: Statistics | None,
        device: torch.device | str = "cpu",
    ) -> Verdict:
        """Measure the graph that ``gate = "off"`` exports, with the crops of a worker.

        Args:
            weights: of a detector of ``config.detector``.
            config: whose ``[export]`` sets the crops.
            statistics: that standardised the run's targets.
            device: where to compute.
        """
        detector = Detector.restored(config.detector, dict(weights)).to(device)
        infer, spec = classifier(detector), config.export.preprocess
        report = evaluate_split(infer, self.pictures, spec)
        if self.pairs:
            report = with_pairs(report, infer, self.pairs, spec)
        if self.heldout is None or statistics is None:
            return Verdict(report, None)
        return Verdict(report, self.heldout.explained(detector, statistics))
