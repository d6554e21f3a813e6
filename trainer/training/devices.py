"""Where a run computes: one CPU, one GPU, or several processes that share the gradient.

In: what ``accelerate launch`` put into the environment, if anything. Out: a device, a rank, and
the few collective operations of training. No errors of its own.

One process needs no launcher. Several train on batches of their own, average their gradients
(DistributedDataParallel) and their norm statistics, and so hold equal weights after every step.
Only the first one writes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]  # ships no types
from accelerate.utils import (  # type: ignore[import-untyped]  # ships no types
    DistributedDataParallelKwargs,
    broadcast_object_list,
)
from torch import Tensor, nn


class Devices:
    """This process's place among those that train together."""

    def __init__(self) -> None:
        # A step uses the noise head, the gate, both or neither: DDP must expect any.
        parallel = DistributedDataParallelKwargs(
            find_unused_parameters=True, broadcast_buffers=False
        )
        threads = torch.get_num_threads()
        self._accelerator = Accelerator(kwargs_handlers=[parallel])
        torch.set_num_threads(threads)  # the launcher's idea of it would undo the configuration
        self.device: torch.device = self._accelerator.device
        self.processes: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """What the first process computes and caches, the others then find."""
        with self._accelerator.main_process_first():
            yield

    def shared(self, module: nn.Module) -> nn.Module:
        """The module on the device; among several, its gradients become their mean."""
        prepared: nn.Module = self._accelerator.prepare_model(module)
        return prepared

    def alone(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Gradients stay this process's own until the last batch of a step."""
        return nullcontext() if last else self._accelerator.no_sync(module)

    def low_precision(self, precision: Literal["fp32", "bf16"]) -> torch.autocast:
        """Matrix products and convolutions in bf16, where that is asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    @torch.no_grad()
    def average(self, module: nn.Module) -> None:
        """Make the norms' running statistics the mean over all processes."""
        if self.processes == 1:
            return
        buffers = [one for one in module.buffers() if one.is_floating_point()]
        if not buffers:
            return
        flat = torch.cat([one.flatten() for one in buffers])
        mean: Tensor = self._accelerator.reduce(flat, reduction="mean")
        parts = torch.split(mean, [one.numel() for one in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def agreed(self, figures: tuple[float, float | None]) -> tuple[float, float | None]:
        """What the first process measured, for all."""
        if self.processes == 1:
            return figures
        content: list[tuple[float, float | None]] = [figures]
        broadcast_object_list(content, from_process=0)
        return content[0]

    def wait(self) -> None:
        """Until all are here."""
        self._accelerator.wait_for_everyone()
