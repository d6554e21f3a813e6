"""The training loop: data, teacher and detector in; a folder with the chosen weights out.

In: a configuration. Out: ``best.pt``, ``last.pt`` and ``progress.jsonl`` in the output folder.
Errors: those of the parts; nothing is written over by a run that fails.

Every draw of a step is a function of (seed, step), so a run resumed after a kill ends with the
weights of one that was never interrupted.
"""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from trainer.config import Config, TrainConfig
from trainer.data.batches import Batch, Batches
from trainer.data.sources import Picture
from trainer.detector import Detector
from trainer.evaluation.families import Report, evaluate
from trainer.evaluation.heldout import HeldOut
from trainer.training import checkpoint
from trainer.training.checkpoint import Best, State
from trainer.training.losses import Loss, anl_loss, require_finite
from trainer.training.targets import Statistics, TargetStore, measure


class Reporter(Protocol):
    """Who is told how the run goes."""

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """After each step; ``computed`` targets were asked of the teacher so far."""
        ...

    def epoch(self, step: int, report: Report, explained_variance: float | None) -> None:
        """After each validation."""
        ...


@dataclass(frozen=True)
class Material:
    """What a run trains on and is checked with."""

    batches: Batches
    validation: tuple[Picture, ...]
    targets: TargetStore | None
    heldout: HeldOut | None
    lineage: dict[str, str]


def export_spec(config: Config) -> PreprocessSpec:
    """How the worker will crop, which validation does too."""
    return PreprocessSpec(
        version=PREPROCESS_VERSION,
        crop_policy=config.export.crop_policy,
        crop_px=config.export.crop_px,
        max_crops=config.export.max_crops,
    )


def train(
    config: Config, material: Material, output: Path, reporter: Reporter, *, resume: bool
) -> Best:
    """Train to the end; with ``resume``, from the last checkpoint on."""
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / checkpoint.LAST).exists():
        raise checkpoint.CheckpointError(
            f"{output} holds a run already: go on with --resume, or name another --output"
        )
    run = _Run(config, material, output, reporter)
    if resume:
        run.restore(checkpoint.load_state(output, config))
    return run.to_the_end()


class _Run:
    """The state of one run."""

    def __init__(
        self, config: Config, material: Material, output: Path, reporter: Reporter
    ) -> None:
        self._config, self._material = config, material
        self._output, self._reporter = output, reporter
        torch.manual_seed(config.seed)
        self._detector = Detector(config.detector)
        self._optimizer = torch.optim.AdamW(
            _groups(self._detector, config.train), lr=config.train.lr
        )
        self._average = _floats(self._detector)
        self._step = 0
        self._best: Best | None = None
        self._statistics: Statistics | None = None

    def restore(self, state: State) -> None:
        """Go on from a checkpoint."""
        self._detector.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        self._average, self._step = state.average, state.step
        self._best, self._statistics = state.best, state.statistics

    def to_the_end(self) -> Best:
        """Every step that is left; validates after each epoch and keeps the best."""
        batches, settings = self._material.batches, self._config.train
        if self._statistics is None and self._material.targets is not None:
            self._statistics = self._measured(self._material.targets)
        for batch in _prefetched(batches, self._step):
            self._one_step(batch)
            self._step += 1
            if self._step % batches.steps_per_epoch == 0:
                self._validate()
            if self._step % settings.checkpoint_every_steps == 0 or self._step == batches.steps:
                self._save()
        if self._best is None:
            raise checkpoint.CheckpointError("the run had no step left: raise train.epochs")
        return self._best

    def _measured(self, targets: TargetStore) -> Statistics:
        """The statistics of the first targets, which training uses itself soon after."""
        batches = self._material.batches
        steps = math.ceil(self._config.teacher.statistics_crops / batches.targets)
        return measure(
            torch.cat(
                [targets.raw(batches.targets_of(one).window_images()) for one in range(steps)]
            )
        )

    def _one_step(self, batch: Batch) -> None:
        config = self._config
        torch.manual_seed(hash_of(config.seed, self._step))
        self._detector.train()
        for group in self._optimizer.param_groups:
            rate = learning_rate(config, self._step, self._material.batches.steps)
            group["lr"] = rate * group["pace"]
        gated = bool(torch.rand(()) >= config.detector.gate_drop_p)
        output = self._detector(torch.from_numpy(batch.image_NHWC), batch.windows, gated=gated)
        loss = anl_loss(output, torch.from_numpy(batch.label_N), self._target(batch), config.loss)
        require_finite(loss, self._step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self._detector.parameters(), config.train.grad_clip)
        self._optimizer.step()
        self._follow()
        computed = self._material.targets.computed if self._material.targets else 0
        self._reporter.step(self._step, self._material.batches.steps, loss, computed)

    def _target(self, batch: Batch) -> Tensor | None:
        if batch.windows is None or self._material.targets is None or self._statistics is None:
            return None
        return self._material.targets.standardised(batch.window_images(), self._statistics)

    def _follow(self) -> None:
        """The moving average; it follows closely at first, when weights still move far."""
        decay = min(self._config.train.ema_decay, (1 + self._step) / (10 + self._step))
        for name, value in _floats(self._detector).items():
            self._average[name].mul_(decay).add_(value, alpha=1 - decay)

    def _validate(self) -> None:
        weights = self._detector.state_dict() | self._average
        weights = {name: value.clone() for name, value in weights.items()}
        judged = Detector(self._config.detector.model_copy(update={"weights": ""}))
        judged.load_state_dict(weights)
        judged.eval()
        report = evaluate(classifier(judged), self._material.validation, export_spec(self._config))
        explained = None
        if self._material.heldout is not None and self._statistics is not None:
            explained = self._material.heldout.explained(judged, self._statistics)
        auc = float(np.mean(list(report.mean_auc.values()))) if report.mean_auc else 0.0
        if self._best is None or auc >= self._best.validation_auc:
            self._best = Best(weights, self._step, auc, explained, self._statistics)
            checkpoint.save_best(self._output, self._best, self._config, self._material.lineage)
        self._reporter.epoch(self._step, report, explained)
        line = {"step": self._step, "auc": report.mean_auc, "explained_variance": explained}
        with (self._output / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = State(
            self._step,
            self._detector.state_dict(),
            self._average,
            self._optimizer.state_dict(),
            self._best,
            self._statistics,
        )
        checkpoint.save_state(self._output, state, self._config)


def classifier(detector: Detector) -> "_Classifier":
    """The plain graph as a function of numpy arrays."""
    return _Classifier(detector, gated=False)


def gated_classifier(detector: Detector) -> "_Classifier":
    """The gated graph as a function of numpy arrays."""
    return _Classifier(detector, gated=True)


@dataclass(frozen=True)
class _Classifier:
    detector: Detector
    gated: bool

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        run = self.detector.classify_gated if self.gated else self.detector.classify
        logit: NDArray[np.float32] = run(torch.from_numpy(image_NHWC.copy())).float().numpy()
        return logit


def hash_of(seed: int, step: int) -> int:
    """A seed for one step, far from that of the next."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warmup = min(config.train.warmup_steps, steps // 2)
    if step < warmup:
        return config.train.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _groups(detector: Detector, settings: TrainConfig) -> list[dict[str, object]]:
    """Weights decay, norms and biases do not; the noise head has a pace of its own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, value in detector.named_parameters():
        groups.setdefault((name.startswith("head."), value.ndim > 1), []).append(value)
    return [
        {
            "params": values,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "pace": settings.head_lr_factor if in_head else 1.0,
        }
        for (in_head, decays), values in groups.items()
    ]


def _floats(detector: Detector) -> dict[str, Tensor]:
    return {
        name: value.detach().clone()
        for name, value in detector.state_dict().items()
        if value.is_floating_point()
    }


def _prefetched(batches: Batches, first: int) -> Iterator[Batch]:
    """The batches from one step on; the next is made while this one trains."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        coming = executor.submit(batches.at, first) if first < batches.steps else None
        for step in range(first, batches.steps):
            if coming is None:
                return
            batch = coming.result()
            coming = executor.submit(batches.at, step + 1) if step + 1 < batches.steps else None
            yield batch
