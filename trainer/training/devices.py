"""The processes that train together: one CPU, one GPU, or several processes that share the gradient.

In: what ``accelerate launch`` put into the environment, if anything. Out: a device, a rank, and the
collective operations of training. No errors of its own.

Several processes train on batches of their own, average their gradients (DistributedDataParallel) and
their norm statistics, and so hold equal weights after every step. Only the first process writes.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]  # ships no types
from accelerate.utils import (  # type: ignore[import-untyped]  # ships no types
    DistributedDataParallelKwargs,
    broadcast_object_list,
)
from torch import Tensor, nn


class Devices:
    """Accelerate's ``Accelerator``, typed and cut down to what training uses."""

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
