"""What the noise costs in inference: nothing with the gate off, and how much with it on.

In: a configuration. Out: the nodes and the latency of three graphs: a plain backbone written
down here apart from the detector, the exported detector with the gate off, and with it on.
Errors: those of the export.

The weights are random: neither nodes nor latency depend on them.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import timm
import torch
from torch import Tensor, nn

from trainer.bundle.export import traced, write_onnx
from trainer.bundle.timing import Load, in_turns
from trainer.config import Config
from trainer.config.base import Part
from trainer.detector import Detector, seen
from trainer.study.grid import digest

PLAIN, GATE_OFF, GATE_ON = "plain backbone", "gate off", "gate on"


class Latency(Part):
    """Of one crop on one thread, in milliseconds."""

    median_ms: float
    p10_ms: float
    p90_ms: float


class Cost(Part):
    """Three graphs side by side."""

    config_digest: str
    backbone: str
    crop_px: int
    rounds: int
    nodes: dict[str, int]
    same_operators: bool  # gate off has each operator as often as the plain backbone has
    latency: dict[str, Latency]


class _Plain(nn.Module):
    """A timm backbone on the same view, the mean over the last map, a linear layer: all without ANL."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        levels = config.detector.levels
        chosen = {"out_indices": tuple(range(levels))} if levels else {}
        self._backbone = timm.create_model(
            config.detector.backbone, features_only=True, pretrained=False, **chosen
        )
        self._view = config.detector.view
        self._linear = nn.Linear(self._backbone.feature_info.channels()[-1], 1)
        self.register_buffer("mean", torch.tensor(config.detector.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(config.detector.std)[:, None, None])

    def forward(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N] of uint8 [N, S, S, 3]."""
        x_NCHW = image_NHWC.to(torch.float32).permute(0, 3, 1, 2) / 255
        x_NCHW = (x_NCHW - self.get_buffer("mean")) / self.get_buffer("std")
        x_NCHW = seen(x_NCHW, self._view)
        logit_N: Tensor = self._linear(self._backbone(x_NCHW)[-1].mean(dim=(2, 3)))[:, 0]
        return logit_N


def measure_cost(config: Config, rounds: int = 60) -> Cost:
    """Export the three graphs, count their nodes, time them in turn."""
    torch.manual_seed(0)
    crop_px = config.export.crop_px
    detector = Detector(config.detector.model_copy(update={"weights": ""})).eval()
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in (PLAIN, GATE_OFF, GATE_ON)}
        graphs = {
            PLAIN: _plain_graph(config, paths[PLAIN]),
            GATE_OFF: write_onnx(detector, paths[GATE_OFF], crop_px, gated=False),
            GATE_ON: write_onnx(detector, paths[GATE_ON], crop_px, gated=True),
        }
        latency = _timed(paths, crop_px, rounds)
    return Cost(
        config_digest=digest(config),
        backbone=config.detector.backbone,
        crop_px=crop_px,
        rounds=rounds,
        nodes={name: len(graph.graph.node) for name, graph in graphs.items()},
        same_operators=_operators(graphs[PLAIN]) == _operators(graphs[GATE_OFF]),
        latency=latency,
    )


def known_cost(config: Config, folder: Path) -> Cost:
    """The cost measured before, or measured now and kept: cost.json of the study's folder."""
    path = folder / "cost.json"
    if path.exists():
        cost = Cost.model_validate_json(path.read_bytes())
        if cost.config_digest == digest(config):
            return cost
    cost = measure_cost(config)
    path.write_text(cost.model_dump_json(indent=2) + "\n")
    return cost


def _plain_graph(config: Config, path: Path) -> onnx.ModelProto:
    return traced(_Plain(config).eval(), path, config.export.crop_px)


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _timed(paths: Mapping[str, Path], crop_px: int, rounds: int) -> dict[str, Latency]:
    took_ms = in_turns({name: Load(path, crop_px) for name, path in paths.items()}, rounds)
    return {
        name: Latency(median_ms=median_ms, p10_ms=p10_ms, p90_ms=p90_ms)
        for name, value_R in took_ms.items()
        for p10_ms, median_ms, p90_ms in [map(float, np.percentile(value_R, (10, 50, 90)))]
    }
