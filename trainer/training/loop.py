"""The training loop: data, teacher and detector in; a folder with the chosen weights out.

In: a configuration. Out: ``best.pt``, ``last.pt``, ``progress.jsonl``, ``run.json`` and ``tensorboard``
in the output folder. Errors: those of the parts; a run that fails overwrites nothing.

Every draw of a step is a function of (seed, step, rank), so a run resumed after a kill ends with the
weights of an uninterrupted one, and no two processes draw the same.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]  # ships no types
from accelerate.utils import (  # type: ignore[import-untyped]  # ships no types
    DistributedDataParallelKwargs,
    broadcast_object_list,
)
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from trainer.config import Config, TrainConfig
from trainer.data.augment import center_crop
from trainer.data.batches import Batch, Batches
from trainer.data.dataset import (
    Dataset,
    Picture,
    check_near,
    evenly,
    pictures_of,
    scan,
    stored_pairs,
)
from trainer.data.pairs import Pair
from trainer.detector import PIXELS, Detector, Windows, classifier, cut
from trainer.errors import DataError
from trainer.evaluation.metrics import SplitResult, evaluate_split, with_pairs
from trainer.teachers.opening import open_teacher
from trainer.training import checkpoint
from trainer.training.checkpoint import (
    Best,
    InitialWeights,
    SeenGenerators,
    State,
    Statistics,
    commit,
    initial_weights_of,
    lineage_of,
    notes_of,
    unlearnt,
)
from trainer.training.losses import Loss, anl_loss, mean_loss, require_finite
from trainer.training.run_logger import RunLogger, StepTimer, StepTimes, Summary
from trainer.training.targets import TargetStore, explained_variance, measure

_LOG_EVERY_STEPS = 10
_SEED_OF_HEADS = 0
_HELDOUT_CROPS = 48  # evenly spread over the split, real and generated
Notify = Callable[[str], None]


class Devices:
    """The processes that train together, as ``accelerate launch`` started them: Accelerate, typed.

    Several processes train on batches of their own, average their gradients (DistributedDataParallel)
    and their norm statistics, and so hold equal weights after every step. Only the first one writes.
    """

    def __init__(self) -> None:
        # A step uses the noise head, the gate, both or neither: DDP must expect any of them.
        parallel = DistributedDataParallelKwargs(
            find_unused_parameters=True, broadcast_buffers=False
        )
        threads = torch.get_num_threads()
        self._accelerator = Accelerator(kwargs_handlers=[parallel])
        torch.set_num_threads(threads)  # accelerate's choice would replace the configuration's
        self.device: torch.device = self._accelerator.device
        self.processes: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process

    def main_first(self) -> AbstractContextManager[None]:
        """Let the first process compute what the others then find in the cache."""
        context: AbstractContextManager[None] = self._accelerator.main_process_first()
        return context

    def shared(self, module: nn.Module) -> nn.Module:
        """The module on the device; among several processes its gradients become their mean."""
        prepared: nn.Module = self._accelerator.prepare_model(module)
        return prepared

    def alone(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Keep gradients in this process until the last batch of a step."""
        return nullcontext() if last else self._accelerator.no_sync(module)

    def low_precision(self, precision: Literal["fp32", "bf16"]) -> torch.autocast:
        """Matrix products and convolutions in bf16, where the configuration sets it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    @torch.no_grad()
    def average_buffers(self, module: nn.Module) -> None:
        """Make the norms' running statistics the mean over all processes.

        Accelerate averages gradients alone, and DDP's broadcast would keep those of one process.
        """
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        if self.processes == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        mean: Tensor = self._accelerator.reduce(flat, reduction="mean")
        parts = torch.split(mean, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def agreed(self, figures: tuple[float, float | None]) -> tuple[float, float | None]:
        """The first process's measurement, for all."""
        content: list[tuple[float, float | None]] = [figures]
        if self.processes > 1:
            broadcast_object_list(content, from_process=0)
        return content[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._accelerator.wait_for_everyone()


class Reporter(Protocol):
    """Where a run reports its progress."""

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """Called after each step; the teacher computed ``computed`` targets so far."""
        ...

    def pace(self, times: StepTimes) -> None:
        """Called now and then with the pace of the steps since the last call."""
        ...

    def epoch(self, step: int, report: SplitResult, explained_variance: float | None) -> None:
        """Called after each validation."""
        ...

    def finished(self, summary: Summary) -> None:
        """Called once, at the end."""
        ...


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


@dataclass(frozen=True)
class TrainInputs:
    """What a run trains on and is validated with.

    Attributes:
        batches: the batch of every step.
        validation: the validation split.
        targets: the teacher's noise; None without a teacher.
        lineage: for the checkpoint.
        start: the first weights; None for those of ``detector.weights``.
    """

    batches: Batches
    validation: Validation
    targets: TargetStore | None
    lineage: dict[str, str]
    start: InitialWeights | None = None

    def statistics(self, config: Config) -> Statistics | None:
        """Of the first targets, which training uses itself soon after; None without a teacher."""
        if self.targets is None:
            return None
        count = math.ceil(config.teacher.statistics_crops / self.batches.targets)
        first = [self.batches.targets_of(step).window_images() for step in range(count)]
        return measure(torch.cat([self.targets.raw(images) for images in first]))


def build(
    config: Config, cache: Path, notify: Notify, dataset: Dataset | None = None
) -> TrainInputs:
    """Read the data and the first weights, and open the teacher.

    Args:
        config: of the run.
        cache: for the teacher's noise and perceptual hashes.
        notify: called with what a person should know.
        dataset: what ``scan`` found; None to scan here.
    """
    dataset = dataset or scan(config.data)
    notify(_summary(dataset))
    start = initial_weights_of(config.train.start_from, dataset)
    near = check_near(dataset, cache, strict=config.data.strict)
    for note in (*notes_of(start), *dataset.notes, *near):
        notify(note)
    pictures = pictures_of(dataset.splits["train"], config.data, notify, config.data.region_px)
    pairs = stored_pairs(dataset, config, "train", notify)
    batches = Batches(pictures, pairs, config)
    targets, teacher_id = None, "none"
    if batches.targets:
        teacher = open_teacher(config.teacher)
        teacher_id = teacher.teacher_id
        targets = TargetStore(teacher, config.teacher, cache / "targets")
    validation = validation_of(dataset, targets, config, notify)
    lineage = {"data_digest": dataset.digest, "teacher_id": teacher_id, "code_commit": commit()}
    seen = SeenGenerators(
        frozenset(dataset.folders("train", 1)), frozenset(pair.family for pair in pairs)
    )
    lineage |= lineage_of(start, dataset, seen)
    return TrainInputs(batches, validation, targets, lineage, start)


def validation_of(
    dataset: Dataset, targets: TargetStore | None, config: Config, notify: Notify
) -> Validation:
    """The validation split; with targets, the noise in some of its crops too."""
    pictures = tuple(pictures_of(dataset.splits["validation"], config.data, notify, None))
    heldout = None
    if targets is not None and pictures:
        notify("computing the teacher's noise of the held-out crops")
        heldout = HeldOut(pictures, targets, config)
    pairs: tuple[Pair, ...] = ()
    if config.train.validate_pairs:
        pairs = tuple(stored_pairs(dataset, config, "validation", notify))
        if not pairs:
            raise DataError(
                "train.validate_pairs: data.pairs holds no pair of a validation photograph: make some "
                "(python -m trainer fakes), or leave the option out"
            )
    return Validation(pictures, pairs, heldout)


def _summary(dataset: Dataset) -> str:
    parts = []
    for name, sources in dataset.splits.items():
        fake = sum(source.label for source in sources)
        parts.append(f"{name}: {len(sources) - fake} real, {fake} fake")
    return f"{'; '.join(parts)}; {dataset.duplicates} duplicates left out"


@dataclass(frozen=True)
class Plan:
    """The shape of a run.

    Attributes:
        steps: updates of the weights.
        validate_every: steps from one validation to the next; the last step is validated too.
        accumulate: batches of each process to a step.
        processes: that train together.
    """

    steps: int
    validate_every: int
    accumulate: int
    processes: int

    def draw(self, step: int, part: int, rank: int) -> int:
        """The number of a batch among all that are ever drawn: no two processes share one."""
        return (step * self.accumulate + part) * self.processes + rank

    def validates(self, done: int) -> bool:
        """Whether a validation follows after so many steps."""
        return done % self.validate_every == 0 or done == self.steps


def plan_of(config: Config, batches_per_epoch: int, processes: int) -> Plan:
    """The plan of a run; the processes share an epoch."""
    settings = config.train
    per_epoch = max(1, batches_per_epoch // (settings.accumulate * processes))
    return Plan(
        steps=settings.steps or per_epoch * settings.epochs,
        validate_every=settings.validate_every_steps or per_epoch,
        accumulate=settings.accumulate,
        processes=processes,
    )


def train(
    config: Config,
    inputs: TrainInputs,
    output: Path,
    reporter: Reporter,
    *,
    resume: bool,
    devices: Devices | None = None,
) -> Best:
    """Train to the end; with ``resume``, from the last checkpoint.

    Raises:
        CheckpointError: the output folder holds a run, or the checkpoint belongs to another one.
        LossError: the loss is not finite.
    """
    devices = devices or Devices()
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / checkpoint.LAST).exists():
        raise checkpoint.CheckpointError(
            f"{output} already holds a run: continue it with --resume, or name another --output"
        )
    run = _Run(config, inputs, output, reporter, devices)
    if resume:
        run.restore(checkpoint.load_state(output, config))
    return run.to_the_end()


class _Run:
    """The state of one run, in one of its processes."""

    def __init__(
        self,
        config: Config,
        inputs: TrainInputs,
        output: Path,
        reporter: Reporter,
        devices: Devices,
    ) -> None:
        self._config, self._inputs, self._devices = config, inputs, devices
        self._output, self._reporter = output, reporter
        self._plan = plan_of(config, inputs.batches.steps_per_epoch, devices.processes)
        target = inputs.targets.shape if inputs.targets else PIXELS
        # The noise head of a run from a bundle keeps its random weights. They do not depend on the
        # run's seed: heads with different first weights have no useful mean.
        torch.manual_seed(config.seed if inputs.start is None else _SEED_OF_HEADS)
        self._detector = Detector(config.detector, target)
        if inputs.start is not None:
            inputs.start.load_into(self._detector)
        self._detector.to(devices.device)
        self._forward = devices.shared(self._detector)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._detector, config.train), lr=config.train.lr, fused=True
        )
        # The warm-up gives a decay of (1 + step) / (10 + step) at first, when weights still move far.
        self._average = ModelEmaV3(
            self._detector,
            decay=config.train.ema_decay,
            update_after_step=-2,
            use_warmup=True,
            warmup_gamma=9,
            warmup_power=1,
        )
        self._timer = StepTimer(time.monotonic)
        self._logged = self._validated = self._timer.total()
        self._logger: RunLogger | None = None
        self._step, self._stale = 0, 0
        self._best: Best | None = None
        self._statistics: Statistics | None = None

    def restore(self, state: State) -> None:
        """Continue from a checkpoint."""
        if state.processes != self._devices.processes:
            raise checkpoint.CheckpointError(
                f"the run had {state.processes} processes, now there are "
                f"{self._devices.processes}: resume with as many, or train into another --output"
            )
        self._detector.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        self._average.module.load_state_dict(state.average)
        self._step, self._stale = state.step, state.stale
        self._best, self._statistics = state.best, state.statistics

    def to_the_end(self) -> Best:
        """Do every step that is left; validate now and then and keep the best weights."""
        if self._inputs.targets is not None:
            self._inputs.targets.to(self._devices.device)
            if self._statistics is None:
                with self._devices.main_first():
                    self._statistics = self._inputs.statistics(self._config)
        self._logger = RunLogger(self._output, self._step) if self._devices.is_main else None
        try:
            self._steps()
            if self._best is None:
                raise checkpoint.CheckpointError("the run had no step left: raise train.epochs")
            self._finish(self._best)
        finally:
            if self._logger is not None:
                self._logger.close()
        return self._best

    def _steps(self) -> None:
        plan, settings = self._plan, self._config.train
        batches = made_ahead(self._inputs.batches.at, self._draws(), settings.data_workers)
        while self._step < plan.steps and not self._gave_up():
            self._one_step(batches)
            self._step += 1
            if plan.validates(self._step):
                self._validate()
            at_end = self._step == plan.steps or self._gave_up()
            if self._step % settings.checkpoint_every_steps == 0 or at_end:
                self._save()

    def _draws(self) -> list[int]:
        """The numbers of this process's batches, from the next step on."""
        return [
            self._plan.draw(step, part, self._devices.rank)
            for step in range(self._step, self._plan.steps)
            for part in range(self._plan.accumulate)
        ]

    def _gave_up(self) -> bool:
        return 0 < self._config.train.patience <= self._stale

    def _one_step(self, batches: Iterator[Batch]) -> None:
        config, plan = self._config, self._plan
        rate = learning_rate(config, self._step, plan.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        self._detector.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for part in range(plan.accumulate):
            with self._timer.timed("data"):
                batch = next(batches)
            with self._timer.timed("teacher"):
                target = self._target(batch)
            with self._timer.timed("student"):
                losses.append(self._gradient(part, batch, target))
            self._timer.trained(len(batch.label_N) * plan.processes)
        with self._timer.timed("student"):
            nn.utils.clip_grad_norm_(self._detector.parameters(), config.train.grad_clip)
            self._optimizer.step()
            self._devices.average_buffers(self._detector)
            self._average.update(self._detector, step=self._step)
        self._log(mean_loss(losses), rate)

    def _gradient(self, part: int, batch: Batch, target: Tensor | None) -> Loss:
        """Add the gradient of one batch."""
        config, plan, devices = self._config, self._plan, self._devices
        # The gate is on or off for all processes alike; every other draw is the process's own.
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
        if batch.windows is None or self._inputs.targets is None or self._statistics is None:
            return None
        eps = self._inputs.targets.standardised(batch.window_images(), self._statistics)
        return eps.to(self._devices.device)

    def _log(self, loss: Loss, rate: float) -> None:
        if (self._step + 1) % _LOG_EVERY_STEPS == 0:
            total = self._timer.total()
            times, self._logged = total.since(self._logged), total
            self._reporter.pace(times)
            if self._logger is not None:
                self._logger.step(self._step + 1, loss, rate, times)
        computed = self._inputs.targets.computed if self._inputs.targets else 0
        self._reporter.step(self._step, self._plan.steps, loss, computed)

    def _validate(self) -> None:
        verdict: Verdict | None = None
        with self._timer.timed("validation"):
            weights = {k: v.cpu().clone() for k, v in self._average.module.state_dict().items()}
            # The weights are equal in every process, so the first one validates for all.
            if self._devices.is_main:
                verdict = self._inputs.validation.verdict(
                    weights, self._config, self._statistics, self._devices.device
                )
            figures = (verdict.auc, verdict.explained_variance) if verdict else (0.0, None)
            auc, explained = self._devices.agreed(figures)
        if verdict is not None:
            self._log_validation(verdict.report, explained)
        best_auc = self._best.validation_auc if self._best else -math.inf
        self._stale = 0 if auc > best_auc else self._stale + 1
        if auc >= best_auc or self._config.train.keep == "last":
            self._best = Best(weights, self._step, auc, explained, self._statistics)
            if self._devices.is_main:
                lineage = self._inputs.lineage
                checkpoint.save_best(self._output, self._best, self._config, lineage)

    def _log_validation(self, report: SplitResult, explained: float | None) -> None:
        self._reporter.epoch(self._step, report, explained)
        if self._logger is not None:
            total = self._timer.total()
            times, self._validated = total.since(self._validated), total
            self._logger.validation(self._step, report, explained, times)

    def _save(self) -> None:
        if not self._devices.is_main:
            return
        state = State(
            step=self._step,
            weights=self._detector.state_dict(),
            average=self._average.module.state_dict(),
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
            pace=self._timer.total(),
        )
        if self._logger is not None:
            if summary.pace.images:  # else the run had finished before, and this adds nothing
                self._logger.finished(summary)
            self._reporter.finished(summary)
        self._devices.wait()


def made_ahead(
    make: Callable[[int], Batch], numbers: Iterable[int], workers: int
) -> Generator[Batch, None, None]:
    """The batches of these numbers in order, made ahead by threads.

    A batch is a function of its number, so the number of threads changes nothing. They are threads, not
    the processes of torch's DataLoader: decoding releases Python's lock, and a process that was forked
    outlives a trainer that is killed.

    Args:
        make: the batch of a number; its errors are raised where that batch is taken.
        numbers: the batches that are wanted.
        workers: how many threads, and how many batches are made ahead.
    """
    wanted = iter(numbers)
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        coming = deque(pool.submit(make, number) for number in islice(wanted, workers))
        try:
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(make, number) for number in islice(wanted, 1))
                yield batch
        finally:
            # A run that stops early must not wait for batches that nobody takes.
            pool.shutdown(wait=False, cancel_futures=True)


def hash_of(seed: int, draw: int) -> int:
    """A seed for one batch, far from that of the next."""
    return int(np.random.SeedSequence((seed, draw)).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warmup = min(config.train.warmup_steps, steps // 2)
    if step < warmup:
        return config.train.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(detector: nn.Module, settings: TrainConfig) -> list[dict[str, object]]:
    """Weights decay, norms and biases do not; the noise head has a learning rate of its own."""
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
