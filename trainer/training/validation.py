"""What the validation split says about weights: it chooses a run's step, and whether a run is ANL.

In: weights, and pictures and pairs that they were not trained on. Out: ``Verdict``, sentences. No errors of
its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.detector import Detector, classifier
from trainer.evaluation.heldout import HeldOut
from trainer.evaluation.metrics import SplitResult, evaluate_split
from trainer.evaluation.pairs import with_pairs
from trainer.training.checkpoint import Best
from trainer.training.targets import Statistics


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


def unlearnt(config: Config, best: Best) -> str | None:
    """Why these weights do not count as ANL; None where they do, or where no noise was to be learnt.

    A student that did not learn its target says nothing about the effect of learning it, whatever its
    other figures.
    """
    wanted = config.train.min_explained_variance
    if config.loss.lambda_noise == 0 or wanted == 0:
        return None
    if best.explained_variance is None:
        return (
            "the explained variance of the teacher's noise was never measured (data.splits.validation "
            "has no image): this run does not count as ANL"
        )
    if best.explained_variance >= wanted:
        return None
    return (
        f"{best.explained_variance:.1%} of the teacher's noise is explained on held-out crops, "
        f"less than the {wanted:.0%} of train.min_explained_variance: this run does not count as ANL"
    )


def anl_doubts(config: Config, validation_images: int) -> tuple[str, ...]:
    """Why a run of this configuration cannot count as ANL, as far as it is known before training.

    Args:
        config: of the run.
        validation_images: that the validation split holds.

    Returns:
        A sentence for each reason, with what to do; empty where there is none.
    """
    if config.loss.lambda_noise == 0 or config.train.min_explained_variance == 0:
        return ()
    doubts = []
    if round(config.train.batch // 2 * config.teacher.share) == 0:
        doubts.append(
            f"no crop of a batch has a target (train.batch {config.train.batch}, teacher.share "
            f"{config.teacher.share:g}), so no noise is learnt: raise teacher.share, or set "
            "loss.lambda_noise = 0 for a plain backbone"
        )
    if validation_images == 0:
        doubts.append(
            "data.splits.validation has no image, so the explained variance cannot be measured and the "
            'model card will say "not ANL": name folders in data.splits.validation'
        )
    return tuple(doubts)
