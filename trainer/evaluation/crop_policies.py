"""How well one detector ranks pictures by one way to crop them, and by another.

In: logits by crop policy, of the same pictures. Out: ``Ranked`` for each. Errors: ``EvaluationError`` for
a policy that there is not, and where a class is missing.

More crops see more of a picture and cost more for each: which of them to take is settled on pictures that
judge nothing else, before the test split is looked at. A picture in the aligned condition is shrunk to what
the crops cover, so that policies which cover more see a larger one there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from engines.manifest import PreprocessSpec
from engines.model_input import crops_of
from engines.preprocess import PREPROCESS_VERSION
from trainer.data.pairs import Pair
from trainer.data.sources import Picture
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.families import CONDITIONS, Condition, Infer, Scored, covered_px, score
from trainer.evaluation.metrics import Bootstrap, mean_difference, table
from trainer.evaluation.pairs import mean_pair_auc
from trainer.evaluation.resampling import Interval


@dataclass(frozen=True)
class Ranked:
    """What one crop policy makes of the pictures.

    Attributes:
        spec: how pictures are cropped.
        aligned_px: the shorter side that the aligned pictures are brought to.
        auc: the mean over families by condition.
        less_first: that, less what the first policy has on each draw of the same pictures.
        pairs: the mean AUC over regenerators of photographs against their own regenerations; None
            without pairs.
    """

    spec: PreprocessSpec
    aligned_px: int
    auc: dict[Condition, Interval]
    less_first: dict[Condition, Interval]
    pairs: float | None

    @property
    def name(self) -> str:
        """As it is asked for."""
        return named(self.spec)

    @property
    def figure(self) -> float:
        """What policies are ordered by: the mean of all that ranks, as validation has it."""
        found = [self.auc[one].value for one in CONDITIONS]
        found += [] if self.pairs is None else [self.pairs]
        return sum(found) / len(found)


def policy_of(text: str) -> PreprocessSpec:
    """Read ``center:224``, ``grid:96:4`` or ``five_crop:96``: a policy, the side in px, how many crops."""
    policy, _, rest = text.partition(":")
    side, _, count = rest.partition(":")
    own = crops_of(policy)
    try:
        return PreprocessSpec.model_validate_strings(
            {
                "version": PREPROCESS_VERSION,
                "crop_policy": policy,
                "crop_px": side,
                "max_crops": count or ("" if own is None else str(own)),
            }
        )
    except ValidationError as error:
        found = [(*one["loc"], one["msg"]) for one in error.errors()]
        why = "; ".join(": ".join(map(str, one)) for one in found)
        raise EvaluationError(
            f"{text!r} is no way to crop ({why}): write center:224, grid:96:4 or five_crop:96, a "
            "policy, the side of a crop in px and, for a grid, how many at most"
        ) from error


def named(spec: PreprocessSpec) -> str:
    """What ``policy_of`` reads."""
    count = f":{spec.max_crops}" if crops_of(spec.crop_policy) is None else ""
    return f"{spec.crop_policy}:{spec.crop_px}{count}"


def ranked(
    infer: Infer,
    pictures: Sequence[Picture],
    pairs: Sequence[Pair],
    specs: Sequence[PreprocessSpec],
    bootstrap: Bootstrap,
) -> list[Ranked]:
    """Score all pictures by each policy.

    Args:
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        pictures: of both classes, whole; none that shaped the weights.
        pairs: photographs with their regenerations, of such photographs.
        specs: the policies; the others are compared with the first.
        bootstrap: of the intervals.
    """
    first: dict[Condition, Scored] = {}
    found = []
    for spec in specs:
        scored = {one: score(infer, pictures, spec, one) for one in CONDITIONS}
        first = first or scored
        auc = {
            one: table(scored[one], one, lambda _family: False, bootstrap).mean["auc"]
            for one in CONDITIONS
        }
        less_first = {
            one: mean_difference(scored[one], first[one], bootstrap) for one in CONDITIONS
        }
        of_pairs = mean_pair_auc(infer, pairs, spec, "native") if pairs else None
        found.append(Ranked(spec, covered_px(spec), auc, less_first, of_pairs))
    return found


def best(found: Sequence[Ranked], fits: Sequence[bool]) -> Ranked | None:
    """The one that ranks best of those that fit into the time, the first of equals; None where none fits."""
    fitting = [one for one, fit in zip(found, fits, strict=True) if fit]
    return max(fitting, key=lambda one: one.figure, default=None)
