"""The bundle that is shipped is whole, small, and says what it is."""

from pathlib import Path

from engines.bundle.keys import read_trust
from engines.bundle.verify import load_bundle
from worker.settings import REFERENCE_KEY

REFERENCE = Path(__file__).parents[2] / "engines" / "bundles" / "reference"
LIMIT_BYTES = 25_000_000


def test_the_reference_bundle_loads() -> None:
    """It is signed by the key that ships with it, its files match, its golden outputs are met."""
    bundle = load_bundle(REFERENCE, trust=read_trust([REFERENCE_KEY]))
    bundle.runtime.close()
    assert bundle.manifest.name == "reference"
    assert bundle.golden_max_difference < 1e-3


def test_the_reference_bundle_is_small() -> None:
    """It is cloned by everybody."""
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < LIMIT_BYTES


def test_the_card_and_the_manifest_give_the_same_figures() -> None:
    """Every generator of the manifest is in the card's table, and those that training knew say so."""
    bundle = load_bundle(REFERENCE)
    bundle.runtime.close()
    card = (REFERENCE / "MODEL_CARD.md").read_text()
    assert bundle.manifest.metrics
    for one in bundle.manifest.metrics:
        assert (
            f"| {one.generator} | {one.condition} | {one.n_fake} | {one.n_real} | {one.auc:.3f}"
            in card
        )
    known = sorted({one.generator for one in bundle.manifest.metrics if one.seen_in_training})
    if known:
        said = f"Training knew these generators by other files of theirs: {', '.join(known)}."
        assert said in card


def test_the_card_has_figures_of_generators_that_were_not_seen() -> None:
    """Its own, or those of the run that left them out: AUC with intervals, and pairs."""
    card = (REFERENCE / "MODEL_CARD.md").read_text()
    section = card.split("## Generators that training never saw")[-1].split("\n## ")[0]
    assert "| native |" in section
    assert "- Generators, aligned: mean AUC" in section
    assert "- Photographs against their own regenerations by" in section
