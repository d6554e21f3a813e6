"""What the validation split says of weights: it chooses a run's step, and tells whether a mean of runs is one.

In: weights, and pictures and pairs that they were not trained on. Out: ``Verdict``. No errors of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.detector import Detector
from trainer.evaluation.families import Report, evaluate
from trainer.evaluation.heldout import HeldOut
from trainer.evaluation.pairs import with_pairs
from trainer.training.inference import classifier, export_spec
from trainer.training.targets import Statistics


@dataclass(frozen=True)
class Verdict:
    """What was measured of one detector.

    Attributes:
        report: of each generator, and the mean AUC by condition, that of pairs beside it.
        explained_variance: of the teacher's noise, on held-out crops; None without a teacher.
    """

    report: Report
    explained_variance: float | None

    @property
    def auc(self) -> float:
        """What weights are chosen by: the mean over all conditions; 0 where a class is missing."""
        return fmean(self.report.mean_auc.values()) if self.report.mean_auc else 0.0


@dataclass(frozen=True)
class Validation:
    """The split, as weights are judged by it.

    Attributes:
        pictures: whole.
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
        """Judge the graph that ``gate = "off"`` exports, cropped as a worker would.

        Args:
            weights: of a detector of ``config.detector``.
            config: whose ``[export]`` says how pictures are cropped.
            statistics: by which the run's targets were standardised.
            device: where to compute.
        """
        detector = Detector.restored(config.detector, dict(weights)).to(device)
        infer, spec = classifier(detector), export_spec(config)
        report = evaluate(infer, self.pictures, spec)
        if self.pairs:
            report = with_pairs(report, infer, self.pairs, spec)
        if self.heldout is None or statistics is None:
            return Verdict(report, None)
        return Verdict(report, self.heldout.explained(detector, statistics))
