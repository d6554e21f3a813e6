"""Ways to crop, as a person names them.

In: ``grid:96:4``. Out: a ``PreprocessSpec``, and back. Errors: ``EvaluationError`` for a policy that there is not.

More crops see more of a picture and cost more for each. A picture in the aligned condition is shrunk to what
the crops cover, so that policies which cover more see a larger one there.
"""

from pydantic import ValidationError

from engines.bundle.manifest import PreprocessSpec, crops_of
from engines.preprocess import PREPROCESS_VERSION
from trainer.evaluation.errors import EvaluationError


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
