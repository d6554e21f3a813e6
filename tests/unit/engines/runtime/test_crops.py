"""What is refused of an engine's answer."""

import numpy as np
import pytest

from engines.runtime.crops import check_logits
from engines.runtime.protocol import RuntimeFailure


def test_a_logit_that_is_not_finite_is_a_failure_that_names_the_crop() -> None:
    with pytest.raises(RuntimeFailure, match=r"crop \[1, 3\]"):
        check_logits(np.array([0, np.nan, 1, np.inf], dtype=np.float32))
