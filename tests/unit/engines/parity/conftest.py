"""What the tests of a comparison start from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engines.parity.speed import Speed, measure_speed
from tests.support.bundles import make_tiny_bundle, rewritten
from tests.support.verified import BOTH


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    """A bundle for both runtimes on the CPU."""
    return rewritten(make_tiny_bundle(tmp_path / "bundle"), runtimes=BOTH)


@pytest.fixture(autouse=True)
def _short_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings of a few calls: half a second for each batch of each runtime adds up."""
    quick = partial(_measure_quickly, measure_speed)
    monkeypatch.setattr("engines.parity.report.measure_speed", quick)


def _measure_quickly(
    measure: Callable[..., tuple[Speed, ...]], *arguments: object, **options: object
) -> tuple[Speed, ...]:
    return measure(*arguments, **{**options, "repetition_s": 0.0})
