"""An engine in its place: a verified bundle, and all that is derived of it once.

In: a bundle, and the mode that its verdicts carry. Out: an :class:`Engine`, which travels with every image that it
is to score, so that an exchange never mixes two. Errors: ``BundleError``, which says what to do.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.bundle.manifest import BundleError, PreprocessSpec, ThresholdSet
from engines.bundle.verify import Bundle
from engines.runtime.protocol import Runtime, RuntimeFailure
from worker.verdict import Mode, Model, sortable_time

Role = Literal["deciding", "canary", "shadow"]


@dataclass(frozen=True, eq=False, slots=True)
class Engine:
    """One loaded bundle in one role; another load of the same bundle is another engine.

    Attributes:
        bundle: The verified bundle, its runtime open.
        role: What it is here for.
        mode: What its verdicts say of that.
        id: Tells its scores from another engine's.
        thresholds: The set that makes bands of its scores.
        model: What its verdicts say of it.
    """

    bundle: Bundle
    role: Role
    mode: Mode
    id: str
    thresholds: ThresholdSet
    model: Model

    @property
    def spec(self) -> PreprocessSpec:
        """The crops that it wants."""
        return self.bundle.manifest.preprocess


def make_engine(bundle: Bundle, role: Role, mode: Mode, threshold_set: str | None) -> Engine:
    """The engine of a bundle.

    Raises:
        BundleError: The bundle has no such threshold set.
    """
    manifest, runtime = bundle.manifest, bundle.runtime
    model = Model(
        name=manifest.name,
        version=manifest.version,
        engine_sha256=runtime.engine_sha256,
        bundle_sha256=bundle.sha256,
        precision=runtime.precision,
        runtime=runtime.name,
        preprocess_version=manifest.preprocess.version,
        built_at=sortable_time(manifest.created_at),
    )
    thresholds = manifest.threshold_set(threshold_set)
    return Engine(bundle, role, mode, engine_id(bundle), thresholds, model)


def engine_id(bundle: Bundle) -> str:
    """What tells one engine's scores from another's: the whole bundle and the runtime."""
    return f"{bundle.sha256[:32]}-{bundle.runtime.name}-{bundle.runtime.precision}"


def identity(engine: Engine) -> dict[str, str]:
    """What log and metric say of an engine."""
    model = engine.model
    return {
        "name": model.name,
        "version": model.version,
        "runtime": model.runtime,
        "precision": model.precision,
        "engine_sha256": model.engine_sha256,
        "bundle_sha256": model.bundle_sha256,
        "signed_by": engine.bundle.signed_by or "unsigned",
    }


def warm_sizes(largest: int) -> tuple[int, ...]:
    """Batch sizes to warm up with: 1, 2, 4, ... and the largest, which is what a busy worker runs."""
    sizes = {largest}
    size = 1
    while size < largest:
        sizes.add(size)
        size *= 2
    return tuple(sorted(sizes))


def warm_up(bundle: Bundle, batch_images: int) -> None:
    """Run the batch sizes in use once, so that the first event does not pay for what is made at first use.

    Args:
        bundle: Its runtime is open.
        batch_images: The most images in a batch.

    Raises:
        BundleError: The engine cannot run them.
    """
    runtime, spec = bundle.runtime, bundle.manifest.preprocess
    for size in warm_sizes(min(runtime.batch_max, batch_images * spec.max_crops)):
        try:
            _run_grey(runtime, size, spec.crop_px)
        except (RuntimeFailure, MemoryError) as error:
            raise BundleError(
                f"{bundle.directory} fails on a batch of {size} grey crops while it is warmed up "
                f"({error}): promote a version that works here"
            ) from error


def _run_grey(runtime: Runtime, size: int, crop_px: int) -> None:
    runtime.infer(np.full((size, crop_px, crop_px, 3), 128, dtype=np.uint8))
