"""What a report is of: the bundle, the machine, the packages.

In: a verified bundle, the machine. Out: plain values. No errors of its own.
"""

import platform
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import packages_distributions, version
from typing import Final

from engines.runtime.machine import Machine, processor_name
from engines.verify import Verified

_SHOWN_FEATURES: Final = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What was measured, where, and how.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        manifest_sha256: its identity when it was measured; adding the report to it gives another.
        measured_at: in UTC, ISO 8601.
        system: operating system and C library.
        processor: the processor's name.
        features: those of it that decide how fast and in what a graph is computed.
        gpu: the first GPU's compute capability.
        packages: the runtimes' versions.
        threads: of one inference.
        auc_loss_max: how much less AUC another precision was allowed.
    """

    name: str
    version: str
    manifest_sha256: str
    measured_at: str
    system: str
    processor: str
    features: tuple[str, ...]
    gpu: str | None
    packages: dict[str, str]
    threads: int
    auc_loss_max: float


def subject_of(
    verified: Verified, machine: Machine, threads: int, auc_loss_max: float, now: datetime
) -> Subject:
    """The bundle on this machine."""
    distributions = packages_distributions()
    return Subject(
        name=verified.manifest.name,
        version=verified.manifest.version,
        manifest_sha256=verified.sha256,
        measured_at=now.isoformat(timespec="seconds"),
        system=platform.platform(),
        processor=processor_name(),
        features=tuple(one for one in _SHOWN_FEATURES if one in machine.processor),
        gpu=machine.gpu,
        packages={
            name: version(distributions[name][0])
            for name in sorted(machine.packages)
            if name in distributions  # on the path without having been installed
        },
        threads=threads,
        auc_loss_max=auc_loss_max,
    )
