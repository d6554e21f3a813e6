"""Two versions are timed in turns, and noise makes an interval wide, not a candidate slow."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.bundle.manifest import EngineFile
from engines.bundle.verify import load_bundle
from engines.release.channels import PromotionRequest, promote
from engines.release.gate import Margins
from engines.release.measure import (
    CALLS,
    PAIRS,
    PAIRS_MIN,
    USUAL,
    WARM_UP_CALLS,
    Clock,
    TimedBatch,
    Timing,
    median_interval,
    time_alternately,
    whole_images,
)
from engines.release.records import Change, Latency, NoLatency, current, history
from engines.release.store import DirectoryStore, ReleaseError, Store, StoreError
from engines.runtime import Runtime
from engines.runtime.machine import this_machine
from tests.support.bundles import make_tiny_bundle, rewritten, tiny_model
from tests.support.releases import TinyReleases, make_releases
from tests.unit.engines.release.candidates import metric
from tests.unit.engines.release.test_channels import NOW


class Noting:
    """A runtime that notes when it is called."""

    def __init__(self, runtime: Runtime, called: list[str], as_what: str) -> None:
        self._runtime, self._called, self._as_what = runtime, called, as_what
        self.name, self.precision = runtime.name, runtime.precision
        self.engine_sha256, self.batch_max = runtime.engine_sha256, runtime.batch_max
        self.close = runtime.close

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The runtime's own logits."""
        self._called.append(self._as_what)
        return self._runtime.infer(image_NHWC)


Two = tuple[TimedBatch, TimedBatch, list[str]]


@pytest.fixture(name="two")
def _two(tmp_path: Path) -> Iterator[Two]:
    """One crop an image for the first, twelve in batches of at most eight for the second."""
    called: list[str] = []
    works = []
    with ExitStack() as opened:
        for what, crops in (("one", 1), ("other", 12)):
            bundle = load_bundle(make_tiny_bundle(tmp_path / what, max_crops=crops))
            opened.callback(bundle.runtime.close)
            runtime = Noting(bundle.runtime, called, what)
            works.append(whole_images(runtime, bundle.manifest, 1))
        yield works[0], works[1], called


def ticking(step_s: float) -> Clock:
    """A clock that goes on by so much whenever somebody looks at it."""
    times = (step_s * tick for tick in count())
    return lambda: next(times)


def test_which_goes_first_changes_from_pair_to_pair(two: Two) -> None:
    """So that what comes second in a pair, on a machine that cools or warms, is either as often."""
    one, other, called = two
    pairs = len(time_alternately(one, other, ticking(100.0)))
    image, image_of_12 = ["one"], ["other"] * 2  # which is more than a batch
    first, second = image * CALLS, image_of_12 * CALLS
    turns = [first + second, second + first] * (pairs // 2)
    warm_up = image * WARM_UP_CALLS + image_of_12 * WARM_UP_CALLS
    assert called == warm_up + [each for turn in turns for each in turn]


def test_a_slow_pair_ends_at_the_budget_but_never_with_too_few(two: Two) -> None:
    one, other, _ = two
    assert len(time_alternately(one, other, ticking(100.0))) == PAIRS_MIN
    assert len(time_alternately(one, other, ticking(0.01))) == PAIRS


def test_a_time_is_that_of_an_image_whatever_its_crops_and_batch(two: Two, tmp_path: Path) -> None:
    """The clock advances by one second per call, so four images in a batch take a quarter each."""
    one, other, _ = two
    assert len(one.image_NHWC) == 1
    assert len(other.image_NHWC) == 12
    assert time_alternately(one, other, ticking(1.0))[0] == (1.0, 1.0)
    manifest = load_bundle(tmp_path / "other").manifest
    four = whole_images(other.runtime, manifest, 4)
    assert len(four.image_NHWC) == 48
    assert time_alternately(one, four, ticking(1.0))[0] == (1.0, 0.25)


@pytest.mark.parametrize(("values", "rank"), [(8, 1), (10, 1), (12, 2), (20, 4), (31, 8)])
def test_the_interval_has_the_ranks_of_the_tables(values: int, rank: int) -> None:
    """Ranks of the two-sided 99 % interval of a median by the binomial distribution."""
    found = median_interval(range(1, values + 1))
    assert (found.low, found.high) == (rank, values + 1 - rank)
    assert found.median == (values + 1) / 2


def test_too_few_values_give_no_interval() -> None:
    with pytest.raises(ValueError, match="7 values give no interval of 99 %: 8 do"):
        median_interval([1.0] * 7)


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=31), st.randoms())
def test_the_interval_holds_the_median_and_knows_no_order(
    values: list[float], random: object
) -> None:
    found = median_interval(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random, by hypothesis
    assert median_interval(shuffled) == found


def test_the_interval_misses_the_truth_as_seldom_as_it_says() -> None:
    """Of equals whose every time is now and then trebled by other work, whose median ratio is 1."""
    random = np.random.default_rng(7)
    times = random.lognormal(0.0, 0.2, (2, 4000, PAIRS))
    times *= np.where(random.random(times.shape) < 0.2, 3.0, 1.0)
    intervals = [median_interval(row) for row in times[0] / times[1]]
    missed = sum(not one.low <= 1.0 <= one.high for one in intervals) / len(intervals)
    assert missed < 0.01
    assert sum(one.low > 1.25 for one in intervals) == 0


PLAIN = PromotionRequest("tests", NOW)
FORCED = PromotionRequest("tests", NOW, "in a hurry", force=True)


@pytest.fixture(name="releases")
def _releases(tmp_path: Path) -> TinyReleases:
    return make_releases(tmp_path)


def bundle(
    releases: TinyReleases,
    version: str,
    crops: int = 1,
    *,
    engines: tuple[tuple[EngineFile, bytes], ...] = (),
    runtimes: tuple[str, ...] = ("onnxruntime-cpu",),
) -> Path:
    """A signed bundle with figures, of so many crops, with these files beside the model."""
    directory = releases.directory / "made" / version
    make_tiny_bundle(directory, version=version, crop_px=128, max_crops=crops)
    for engine, data in engines:
        (directory / engine.path).parent.mkdir(exist_ok=True)
        (directory / engine.path).write_bytes(data)
    changes = {
        "metrics": (metric(0.9),),
        "engines": tuple(engine for engine, _ in engines),
        "runtimes": runtimes,
        "tolerances": {"fp32": 1e-4, "fp16": 1e-2},
    }
    return releases.signer.sign(rewritten(directory, **changes))


def promoted(
    releases: TinyReleases,
    made: Path,
    asked: PromotionRequest = PLAIN,
    *,
    store: Store | None = None,
    timing: Timing = USUAL,
) -> Change:
    """Take stable to the bundle."""
    trust = releases.signer.trust
    return promote(store or releases.store, "stable", made, asked, trust, Margins(), timing)


def latency_of(change: Change) -> Latency | NoLatency:
    """What the record says of latency."""
    assert change.measured is not None
    return change.measured.latency


def test_an_equal_passes_and_its_latency_is_in_the_record(releases: TinyReleases) -> None:
    first = promoted(releases, bundle(releases, "0.1.0"))
    assert latency_of(first) == NoLatency(why="the channel was empty")
    promoted(releases, bundle(releases, "0.2.0"), timing=Timing(images=2))
    change = current(releases.store, "stable")
    assert change is not None
    found = latency_of(change)
    assert isinstance(found, Latency)
    assert (found.images, found.candidate.crops, found.in_place.crops) == (2, 1, 1)
    assert (found.candidate.version, found.in_place.version) == ("0.2.0", "0.1.0")
    assert found.low <= found.ratio <= found.high
    assert found.low < 1.25
    assert found.candidate.runtime == "onnxruntime-cpu"
    assert "times the latency per image" in str(change.measured)


def test_more_crops_an_image_make_a_candidate_slow_that_is_as_fast_a_crop(
    releases: TinyReleases,
) -> None:
    """Nine crops for one: refused, or forced with the finding noted."""
    promoted(releases, bundle(releases, "0.1.0"))
    slow = bundle(releases, "0.2.0", 9)
    with pytest.raises(
        ReleaseError, match=r"9 crops\) after .*1 crop\): slower by more than 1\.25"
    ):
        promoted(releases, slow)
    assert len(history(releases.store, "stable")) == 1
    forced = promoted(releases, slow, FORCED)
    assert forced.forced
    assert "slower by more than 1.25 times" in forced.findings[0]


def test_latency_is_left_out_where_that_is_asked_for_and_the_record_says_so(
    releases: TinyReleases,
) -> None:
    promoted(releases, bundle(releases, "0.1.0"))
    change = promoted(releases, bundle(releases, "0.2.0", 9), timing=Timing(skip=True))
    assert not change.forced
    assert latency_of(change) == NoLatency(why="skipped on request")


def test_a_version_in_place_that_cannot_run_here_is_told(releases: TinyReleases) -> None:
    """No latency is taken for granted: it is skipped by name, or the promotion is forced."""
    releases.smuggle(bundle(releases, "0.1.0", runtimes=("unheard-of",)))
    candidate = bundle(releases, "0.2.0")
    told = r"tiny 0\.1\.0, which is in place, cannot be run here .*: skip it with --skip-latency"
    with pytest.raises(ReleaseError, match=told):
        promoted(releases, candidate)
    assert promoted(releases, candidate, timing=Timing(skip=True)).findings == ()
    assert promoted(releases, bundle(releases, "0.3.0")).findings == ()


def test_a_store_that_goes_away_while_latency_is_measured_changes_nothing(
    releases: TinyReleases,
) -> None:
    """And it is told as what it is, not as something against the candidate."""
    promoted(releases, bundle(releases, "0.1.0"))
    candidate = bundle(releases, "0.2.0")

    class Leaving(DirectoryStore):
        """A store that does not answer once, right after the candidate was read."""

        gone = False

        def read(self, key: str) -> bytes | None:
            """Bytes, as long as it is there."""
            if self.gone:
                self.gone = False
                raise StoreError("the store went away")
            self.gone = key.startswith("versions/tiny/0.2.0/signatures/")  # what is read last
            return super().read(key)

    with pytest.raises(StoreError, match="the store went away"):
        promoted(releases, candidate, FORCED, store=Leaving(releases.store_path))
    assert [one.after.version for one in history(releases.store, "stable")] == ["0.1.0"]


def test_every_runtime_here_is_asked_and_the_record_lists_it(releases: TinyReleases) -> None:
    made = bundle(releases, "0.1.0", runtimes=("onnxruntime-cpu", "openvino-cpu"))
    measured = promoted(releases, made).measured
    assert measured is not None
    parity = measured.parity
    assert {(one.runtime, one.precision) for one in parity.checked} >= {
        ("onnxruntime-cpu", "fp32"),
        ("openvino-cpu", "fp32"),
    }
    assert all(one.max_difference <= one.tolerance for one in parity.checked)
    assert all((one.changed, one.of) == (0, 7) for one in parity.checked)


def test_a_runtime_that_disagrees_refuses_the_candidate_and_no_force_passes_it(
    releases: TinyReleases,
) -> None:
    """ONNX Runtime, which this machine picks, is in order; OpenVINO has a graph of its own, of another model."""
    engine = EngineFile(path="openvino.onnx", runtime="openvino-cpu", precision="fp32")
    other = tiny_model(128, bias=0.5).SerializeToString()
    runtimes = ("onnxruntime-cpu", "openvino-cpu")
    made = bundle(releases, "0.1.0", engines=((engine, other),), runtimes=runtimes)
    with pytest.raises(ReleaseError, match=r"openvino\.onnx\): a golden logit differs by 0\.375"):
        promoted(releases, made, FORCED)
    broken = onnx.ModelProto().SerializeToString()
    made = bundle(releases, "0.2.0", engines=((engine, broken),), runtimes=runtimes)
    with pytest.raises(ReleaseError, match=r"openvino\.onnx cannot be loaded"):
        promoted(releases, made, FORCED)
    assert history(releases.store, "stable") == []


def test_a_plan_for_another_machine_is_said_not_to_be_checked(releases: TinyReleases) -> None:
    """No GPU has that architecture, so none that runs this test checks the plan."""
    plan = EngineFile(
        path="plans/a.plan",
        runtime="tensorrt",
        precision="fp16",
        compute_capability="1.0",
        runtime_version="11.4.0",
    )
    made = bundle(
        releases, "0.1.0", engines=((plan, b"plan"),), runtimes=("onnxruntime-cpu", "tensorrt")
    )
    measured = promoted(releases, made).measured
    assert measured is not None
    told = "not checked here: tensorrt fp16 plan for sm_10 (plans/a.plan): "
    assert told in str(measured)
    if this_machine().gpu is None:
        assert "no NVIDIA GPU" in str(measured)
