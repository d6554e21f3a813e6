"""Signed bundles with figures, for the gate to compare."""

from pathlib import Path

from engines.bundle.manifest import GeneratorMetric, read_manifest, write_manifest
from tests.support.bundles import make_tiny_bundle
from tests.support.signing import Signer


def metric(auc: float, *, n_fake: int = 50, seen: bool = False) -> GeneratorMetric:
    """How well one generator's images are told from real ones."""
    return GeneratorMetric(
        generator="flux1",
        condition="native",
        seen_in_training=seen,
        n_fake=n_fake,
        n_real=60,
        auc=auc,
        ap=auc,
        accuracy_at_half=0.8,
        real_accuracy=0.8,
        fake_accuracy=0.8,
    )


def make_candidate(
    directory: Path, signer: Signer | None, version: str = "0.1.0", *, auc: float = 0.9
) -> Path:
    """A tiny bundle of that version and AUC; signed, where there is a signer."""
    make_tiny_bundle(directory, version=version)
    manifest = read_manifest(directory).model_copy(update={"metrics": (metric(auc),)})
    write_manifest(directory, manifest)
    return signer.sign(directory) if signer else directory
