"""The loss: its three parts, their weights, and what is not a number."""

import pytest
import torch

from trainer.config import LossConfig
from trainer.detector import Output
from trainer.training.losses import Loss, LossError, anl_loss, globality, mean_loss, require_finite


def output(*, eps: bool = True, attention: bool = True) -> Output:
    """Even logits, unit noise, evidence in one place."""
    energy = torch.zeros(2, 2, 2)
    energy[:, 0, 0] = 50.0
    return Output(
        torch.zeros(2),
        torch.ones(2, 3, 4, 4) if eps else None,
        energy if attention else None,
    )


def test_the_loss_is_the_weighed_sum() -> None:
    """The sum is ln 2 + 2 * 1 + 0.5 * 1 for even logits, noise off by one, evidence in one place."""
    config = LossConfig(lambda_noise=2.0, lambda_glob=0.5)
    loss = anl_loss(output(), torch.tensor([0.0, 1.0]), torch.zeros(2, 3, 4, 4), config)
    assert loss.bce == pytest.approx(0.6931, abs=1e-4)
    assert loss.noise == pytest.approx(1.0)
    assert loss.glob == pytest.approx(1.0, abs=1e-4)
    assert loss.total.item() == pytest.approx(0.6931 + 2 + 0.5, abs=1e-3)


def test_missing_parts_count_nothing() -> None:
    """Without targets and with the gate dropped, the loss is the BCE."""
    loss = anl_loss(output(eps=False, attention=False), torch.zeros(2), None, LossConfig())
    assert loss.total.item() == pytest.approx(loss.bce)
    assert (loss.noise, loss.glob) == (0.0, 0.0)


def test_spread_out_evidence_costs_nothing() -> None:
    """0 for an even map, 1 for a single place, in between between."""
    even, half, single = torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    half[0, 0] = 100.0
    single[0, 0, 0] = 100.0
    assert globality(even, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert globality(half, 1.0).item() == pytest.approx(0.5, abs=1e-6)
    assert globality(single, 1.0).item() == pytest.approx(1, abs=1e-6)


def test_the_loss_of_a_step_is_the_mean_of_its_batches() -> None:
    """Part by part, for the log; it carries no gradient."""
    first = Loss(torch.tensor(1.0, requires_grad=True), 0.5, 2.0, 0.1)
    found = mean_loss([first, Loss(torch.tensor(3.0), 1.5, 4.0, 0.3)])
    assert found.total.item() == pytest.approx(2)
    assert (found.bce, found.noise, found.glob) == pytest.approx((1.0, 3.0, 0.2))
    assert not found.total.requires_grad


def test_tau_softens() -> None:
    """A higher temperature makes the same map more even."""
    energy = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    assert globality(energy, 4.0) < globality(energy, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(value: float) -> None:
    """The message gives the step and what to lower."""
    with pytest.raises(LossError, match=r"not finite at step 17 .* lower train\.lr"):
        require_finite(Loss(torch.tensor(value), value, 0.0, 0.0), 17)
