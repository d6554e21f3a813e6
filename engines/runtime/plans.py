"""What is decided about plans before and while they run; pure.

In: a manifest and what the machine has, or numbers of crops. Out: the plan to load, the batches to
run it with. Errors: ``OtherMachineError`` where no plan fits, which says which there are.
"""

from collections.abc import Sequence
from typing import Final

from engines.manifest import BundleError, EngineFile, Manifest

# From here on a batch runs as two halves: the second is copied while the first is computed.
_WORTH_HALVING: Final = 16


class OtherMachineError(BundleError):
    """Nothing is wrong with the plans, but none is for this machine."""


def choose_plan(manifest: Manifest, runtime: str, version: str, capability: str) -> EngineFile:
    """The plan of ``runtime`` that this machine can run.

    Args:
        manifest: the bundle's.
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: the exact release that is installed.
        capability: the compute capability of the GPU, "9.0".

    Returns:
        One built for this very architecture before one that also runs on it; of equals, the first.

    Raises:
        OtherMachineError: there are others; the message says which, and what to do.
        BundleError: there is none at all.
    """
    plans = [one for one in manifest.engines if one.runtime == runtime]
    again = f"compile the bundle on this machine: `python -m engines compile --target {runtime}`"
    if not plans:
        raise BundleError(f"the bundle has no plan for {runtime}: {again}")
    fitting = [one for one in plans if one.runtime_version == version]
    if not fitting:
        raise OtherMachineError(
            f"the bundle has plans for {runtime} {_listed([p.runtime_version for p in plans])}, and "
            f"plans run on no other release; this machine has {version}: install that release, "
            f"or {again}"
        )
    exact = [one for one in fitting if one.compute_capability == capability]
    chosen = exact or [one for one in fitting if _runs_on(one, capability)]
    if not chosen:
        raise OtherMachineError(
            f"the bundle has plans of {runtime} {version} for GPUs of compute capability "
            f"{_listed([_reach(p) for p in fitting])}; this one has {capability}: {again}"
        )
    return chosen[0]


def _runs_on(plan: EngineFile, capability: str) -> bool:
    if plan.compute_capability is None or not plan.hardware_compatible:
        return False
    return _numbers(plan.compute_capability) <= _numbers(capability)


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _reach(plan: EngineFile) -> str:
    later = " or later" if plan.hardware_compatible else ""
    return f"{plan.compute_capability}{later}"


def _listed(values: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(str(one) for one in values))


def buckets(most: int) -> tuple[int, ...]:
    """The batches that are prepared: powers of two, and ``most`` itself, ascending.

    Every other batch is filled up to the next of them, at most to twice its crops.
    """
    if most < 1:
        raise ValueError(f"a batch holds at least 1 crop, not {most}")
    powers = [1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most]
    return (*powers, most)


def bucket_for(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending sizes that holds ``count`` crops."""
    return next(size for size in sizes if size >= count)


def cut(count: int, most: int) -> tuple[int, ...]:
    """The pieces, each at most ``most``, that ``count`` crops run as; they add up to it.

    What would be one piece and is large enough becomes two, so that copying the second overlaps
    with computing the first.
    """
    pieces = -(-count // most)
    if pieces == 1 and count >= _WORTH_HALVING:
        pieces = 2
    size, larger = divmod(count, pieces)
    return (size + 1,) * larger + (size,) * (pieces - larger)


def halved(most: int) -> int | None:
    """The next smaller batch after memory ran out; None when even one crop is too much."""
    return most // 2 or None
