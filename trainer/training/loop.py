"""The training loop: data, teacher and detector in; a folder with the chosen weights out.

In: a configuration. Out: ``best.pt``, ``last.pt``, ``progress.jsonl``, ``run.json`` and
``tensorboard`` in the output folder. Errors: those of the parts; nothing is written over by a run
that fails.

Every draw of a step is a function of (seed, step, rank), so a run resumed after a kill ends with
the weights of one that was never interrupted, and several processes never draw the same.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.data.batches import Batch
from trainer.detector import PIXELS, Detector
from trainer.evaluation.families import Report
from trainer.training import checkpoint
from trainer.training.average import MovingAverage
from trainer.training.checkpoint import Best, State
from trainer.training.claim import unlearnt
from trainer.training.devices import Devices
from trainer.training.inference import classifier, export_spec, gated_classifier
from trainer.training.journal import Journal, Summary
from trainer.training.losses import Loss, anl_loss, mean_loss, require_finite
from trainer.training.material import Material, Reporter
from trainer.training.pace import Stopwatch, since
from trainer.training.schedule import hash_of, learning_rate, parameter_groups, plan_of
from trainer.training.stream import made_ahead
from trainer.training.targets import Statistics
from trainer.training.validation import Verdict

__all__ = ["Material", "Reporter", "classifier", "export_spec", "gated_classifier", "train"]

_LOG_EVERY_STEPS = 10
_SEED_OF_HEADS = 0


def train(
    config: Config,
    material: Material,
    output: Path,
    reporter: Reporter,
    *,
    resume: bool,
    devices: Devices | None = None,
) -> Best:
    """Train to the end; with ``resume``, from the last checkpoint on."""
    devices = devices or Devices()
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / checkpoint.LAST).exists():
        raise checkpoint.CheckpointError(
            f"{output} holds a run already: go on with --resume, or name another --output"
        )
    run = _Run(config, material, output, reporter, devices)
    if resume:
        run.restore(checkpoint.load_state(output, config))
    return run.to_the_end()


class _Run:
    """The state of one run, in one of its processes."""

    def __init__(
        self,
        config: Config,
        material: Material,
        output: Path,
        reporter: Reporter,
        devices: Devices,
    ) -> None:
        self._config, self._material, self._devices = config, material, devices
        self._output, self._reporter = output, reporter
        self._plan = plan_of(config, material.batches.steps_per_epoch, devices.processes)
        target = material.targets.shape if material.targets else PIXELS
        # What a start leaves as it is born, the noise head of a run from a bundle, is born alike whatever
        # the seed: heads that begin apart have no mean.
        torch.manual_seed(config.seed if material.start is None else _SEED_OF_HEADS)
        self._detector = Detector(config.detector, target)
        if material.start is not None:
            material.start.load_into(self._detector, material.batches)
        self._detector.to(devices.device)
        self._forward = devices.shared(self._detector)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._detector, config.train), lr=config.train.lr, fused=True
        )
        self._average = MovingAverage(self._detector, config.train.ema_decay)
        self._watch = Stopwatch(time.monotonic)
        self._logged = self._validated = self._watch.total()
        self._journal: Journal | None = None
        self._step, self._stale = 0, 0
        self._best: Best | None = None
        self._statistics: Statistics | None = None

    def restore(self, state: State) -> None:
        """Go on from a checkpoint."""
        if state.processes != self._devices.processes:
            raise checkpoint.CheckpointError(
                f"the run had {state.processes} processes, now there are "
                f"{self._devices.processes}: resume with as many, or train into another --output"
            )
        self._detector.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        self._average.restore(state.average, self._devices.device)
        self._step, self._stale = state.step, state.stale
        self._best, self._statistics = state.best, state.statistics

    def to_the_end(self) -> Best:
        """Every step that is left; validates now and then and keeps the best."""
        if self._material.targets is not None:
            self._material.targets.to(self._devices.device)
            if self._statistics is None:
                with self._devices.main_first():
                    self._statistics = self._material.statistics(self._config)
        self._journal = Journal(self._output, self._step) if self._devices.is_main else None
        try:
            self._steps()
            if self._best is None:
                raise checkpoint.CheckpointError("the run had no step left: raise train.epochs")
            self._finish(self._best)
        finally:
            if self._journal is not None:
                self._journal.close()
        return self._best

    def _steps(self) -> None:
        plan, settings = self._plan, self._config.train
        batches = made_ahead(self._material.batches, self._draws(), settings.data_workers)
        while self._step < plan.steps and not self._gave_up():
            self._one_step(batches)
            self._step += 1
            if plan.validates(self._step):
                self._validate()
            at_end = self._step == plan.steps or self._gave_up()
            if self._step % settings.checkpoint_every_steps == 0 or at_end:
                self._save()

    def _draws(self) -> Iterator[int]:
        """The numbers of this process's batches, from the next step on."""
        for step in range(self._step, self._plan.steps):
            for part in range(self._plan.accumulate):
                yield self._plan.draw(step, part, self._devices.rank)

    def _gave_up(self) -> bool:
        return 0 < self._config.train.patience <= self._stale

    def _one_step(self, batches: Iterator[Batch]) -> None:
        config, plan = self._config, self._plan
        rate = learning_rate(config, self._step, plan.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        self._detector.train()
        if config.train.frozen_norms:
            self._detector.freeze_norms()
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for part in range(plan.accumulate):
            with self._watch.doing("data"):
                batch = next(batches)
            with self._watch.doing("teacher"):
                target = self._target(batch)
            with self._watch.doing("student"):
                losses.append(self._gradient(part, batch, target))
            self._watch.trained(len(batch.label_N) * plan.processes)
        with self._watch.doing("student"):
            nn.utils.clip_grad_norm_(self._detector.parameters(), config.train.grad_clip)
            self._optimizer.step()
            self._devices.average(self._detector)
            self._average.follow(self._step)
        self._tell(mean_loss(losses), rate)

    def _gradient(self, part: int, batch: Batch, target: Tensor | None) -> Loss:
        """Add the gradient of one batch."""
        config, plan, devices = self._config, self._plan, self._devices
        # The gate is on or off for all processes alike; what else is drawn is each one's own.
        torch.manual_seed(hash_of(config.seed, plan.draw(self._step, part, 0)))
        gated = bool(torch.rand(()) >= config.detector.gate_drop_p)
        if devices.rank:
            torch.manual_seed(hash_of(config.seed, plan.draw(self._step, part, devices.rank)))
        image_NHWC = torch.from_numpy(batch.image_NHWC).to(devices.device)
        label_N = torch.from_numpy(batch.label_N).to(devices.device)
        with devices.alone(self._forward, last=part + 1 == plan.accumulate):
            with devices.low_precision(config.train.precision):
                output = self._forward(image_NHWC, batch.windows, gated=gated)
            loss = anl_loss(output.in_fp32(), label_N, target, config.loss)
            require_finite(loss, self._step)
            (loss.total / plan.accumulate).backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss

    def _target(self, batch: Batch) -> Tensor | None:
        if batch.windows is None or self._material.targets is None or self._statistics is None:
            return None
        found = self._material.targets.standardised(batch.window_images(), self._statistics)
        return found.to(self._devices.device)

    def _tell(self, loss: Loss, rate: float) -> None:
        if (self._step + 1) % _LOG_EVERY_STEPS == 0:
            total = self._watch.total()
            stretch, self._logged = since(self._logged, total), total
            self._reporter.pace(stretch)
            if self._journal is not None:
                self._journal.step(self._step + 1, loss, rate, stretch)
        computed = self._material.targets.computed if self._material.targets else 0
        self._reporter.step(self._step, self._plan.steps, loss, computed)

    def _validate(self) -> None:
        verdict: Verdict | None = None
        with self._watch.doing("validation"):
            weights = self._average.weights()
            # Equal in every process, so one of them can judge for all.
            if self._devices.is_main:
                verdict = self._material.validation.verdict(
                    weights, self._config, self._statistics, self._devices.device
                )
            found = (verdict.auc, verdict.explained_variance) if verdict else (0.0, None)
            auc, explained = self._devices.agreed(found)
        if verdict is not None:
            self._tell_validation(verdict.report, explained)
        self._stale = (
            0 if self._best is None or auc > self._best.validation_auc else self._stale + 1
        )
        last_wins = self._config.train.keep == "last"
        if self._best is None or last_wins or auc >= self._best.validation_auc:
            self._best = Best(weights, self._step, auc, explained, self._statistics)
            if self._devices.is_main:
                lineage = self._material.lineage
                checkpoint.save_best(self._output, self._best, self._config, lineage)

    def _tell_validation(self, report: Report, explained: float | None) -> None:
        self._reporter.epoch(self._step, report, explained)
        if self._journal is not None:
            total = self._watch.total()
            stretch, self._validated = since(self._validated, total), total
            self._journal.validation(self._step, report, explained, stretch)

    def _save(self) -> None:
        if not self._devices.is_main:
            return
        state = State(
            step=self._step,
            weights=self._detector.state_dict(),
            average=self._average.state(),
            optimizer=self._optimizer.state_dict(),
            best=self._best,
            statistics=self._statistics,
            stale=self._stale,
            processes=self._devices.processes,
        )
        checkpoint.save_state(self._output, state, self._config)

    def _finish(self, best: Best) -> None:
        done = self._step == self._plan.steps
        summary = Summary(
            step=self._step,
            stopped="at the end" if done else f"{self._stale} validations without a better one",
            best_step=best.step,
            validation_auc=best.validation_auc,
            explained_variance=best.explained_variance,
            unlearnt=unlearnt(self._config, best),
            device=str(self._devices.device),
            processes=self._devices.processes,
            precision=self._config.train.precision,
            pace=self._watch.total(),
        )
        if self._journal is not None:
            if summary.pace.images:  # else the run was finished before, and this adds nothing
                self._journal.finished(summary)
            self._reporter.finished(summary)
        self._devices.wait()
