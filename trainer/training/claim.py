"""Whether a run may be called ANL.

In: a configuration and the chosen weights. Out: a sentence that says why not, or None. No errors.

A student that did not learn its target says nothing of what learning it does: under
``train.min_explained_variance`` a run is not ANL, whatever its other figures.
"""

from trainer.config import Config
from trainer.training.checkpoint import Best


def unlearnt(config: Config, best: Best) -> str | None:
    """Why these weights are not ANL; None where they are, or where no noise was to be learnt."""
    wanted = config.train.min_explained_variance
    if config.loss.lambda_noise == 0 or wanted == 0:
        return None
    if best.explained_variance is None:
        return (
            "how much of the teacher's noise is explained was never measured "
            "(data.splits.validation has no image): this run does not count as ANL"
        )
    if best.explained_variance >= wanted:
        return None
    return (
        f"{best.explained_variance:.1%} of the teacher's noise is explained on held-out crops, "
        f"under the {wanted:.0%} of train.min_explained_variance: this run does not count as ANL"
    )
