"""What the noise costs in inference is measured on exported graphs, once."""

from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.study import cost
from trainer.study.cost import GATE_OFF, GATE_ON, PLAIN, Cost, known_cost, measure_cost
from trainer.study.grid import digest


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("view", ["picture", "residual"])
def test_the_gate_off_costs_what_a_plain_backbone_costs(tmp_path: Path, view: str) -> None:
    """Operator for operator the same on either view; the gate is more."""
    config = tiny_config(tmp_path, {"[detector]": f'[detector]\nview = "{view}"'})
    found = measure_cost(config, rounds=5)
    assert found.same_operators
    assert found.nodes[PLAIN] == found.nodes[GATE_OFF] < found.nodes[GATE_ON]
    assert all(0 < one.p10_ms <= one.median_ms <= one.p90_ms for one in found.latency.values())


def test_it_is_measured_again_only_for_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports take as long as many a cell."""
    measured: list[str] = []

    def counted(config: object) -> Cost:
        del config
        measured.append("once")
        return Cost(
            config_digest=digest(configs[len(measured) - 1]),
            backbone="b",
            crop_px=64,
            rounds=1,
            nodes={},
            same_operators=True,
            latency={},
        )

    configs = [
        tiny_config(tmp_path),
        tiny_config(tmp_path, {"crop_px = 64\nbatch_max": "crop_px = 32\nbatch_max"}),
    ]
    monkeypatch.setattr(cost, "measure_cost", counted)
    first = known_cost(configs[0], tmp_path)
    assert known_cost(configs[0], tmp_path) == first
    assert len(measured) == 1
    known_cost(configs[1], tmp_path)
    assert len(measured) == 2
