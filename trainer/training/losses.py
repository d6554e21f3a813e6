"""The loss of ANL: BCE + lambda_noise * MSE(noise) + lambda_glob * (1 - normalised entropy).

In: the detector's output, the labels, the standardised targets. Out: the loss and its parts.
Errors: ``LossError`` where it is not a finite number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import LossConfig
from trainer.detector import Output
from trainer.errors import TrainerError


class LossError(TrainerError):
    """Training went astray; the message says what to change."""


@dataclass(frozen=True)
class Loss:
    """A step's loss and, for the log, its parts."""

    total: Tensor
    bce: float
    noise: float
    glob: float


def anl_loss(
    output: Output, label_N: Tensor, target_BCHW: Tensor | None, config: LossConfig
) -> Loss:
    """The loss of one batch; a part whose weight is zero, or that has no input, is zero."""
    bce = functional.binary_cross_entropy_with_logits(output.logit_N, label_N)
    zero = torch.zeros(())
    noise, glob = zero, zero
    if output.eps_BCHW is not None and target_BCHW is not None:
        noise = functional.mse_loss(output.eps_BCHW, target_BCHW)
    if output.attention_BHW is not None:
        glob = globality(output.attention_BHW, config.tau)
    total = bce + config.lambda_noise * noise + config.lambda_glob * glob
    return Loss(total, bce.item(), noise.item(), glob.item())


def mean_loss(losses: Sequence[Loss]) -> Loss:
    """Of the batches of one step; for the log alone, without a gradient."""
    count = len(losses)
    return Loss(
        torch.stack([one.total.detach() for one in losses]).mean(),
        sum(one.bce for one in losses) / count,
        sum(one.noise for one in losses) / count,
        sum(one.glob for one in losses) / count,
    )


def globality(energy_BHW: Tensor, tau: float) -> Tensor:
    """1 - H(softmax(E / tau)) / log(h w), the mean over images: 0 where evidence is spread out."""
    flat_BN = energy_BHW.flatten(1) / tau
    share_BN = flat_BN.softmax(dim=1)
    entropy_B = -(share_BN * flat_BN.log_softmax(dim=1)).sum(dim=1)
    return (1 - entropy_B / math.log(max(2, flat_BN.shape[1]))).mean()


def require_finite(loss: Loss, step: int) -> None:
    """Stop at the first loss that is not a number, before it spoils the weights."""
    if not math.isfinite(loss.total.item()):
        raise LossError(
            f"the loss is not finite at step {step} (bce {loss.bce}, noise {loss.noise}, "
            f"globality {loss.glob}): lower train.lr or loss.lambda_noise, then start from the "
            "last checkpoint with --resume"
        )
