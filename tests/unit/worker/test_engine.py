"""Engines: told apart, warm before their first event, acquired and closed, loaded from a channel or a local copy."""

import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import LogCapture

from engines.bundle.manifest import BundleError
from tests.support.releases import TinyReleases, make_releases
from tests.support.signing import make_signer
from tests.unit.worker.engines import BATCH_MAX, FaultyRuntime, make_tiny_engine, with_runtime
from tests.unit.worker.following import Following, other_golden, settings_of
from worker.engine import (
    Engine,
    EngineLoader,
    EngineSlots,
    Role,
    canary_position,
    is_canary_content,
    make_engine,
    warm_sizes,
    warm_up,
)

WARM = 128  # the grey level of the crops that warm up


def test_two_loads_of_one_bundle_are_two_engines_with_the_same_scores(tmp_path: Path) -> None:
    """They share scores by their id, and no batch."""
    one = make_tiny_engine(tmp_path / "one")
    other = make_engine(one.bundle, "canary", "canary", None)
    assert one != other
    assert one.id == other.id
    assert (one.mode, other.mode) == ("enforce", "canary")


def test_an_unknown_threshold_set_is_refused(tmp_path: Path) -> None:
    """With those that there are."""
    bundle = make_tiny_engine(tmp_path).bundle
    with pytest.raises(BundleError, match="no threshold set 'strict': choose one of default"):
        make_engine(bundle, "deciding", "enforce", "strict")


@given(st.integers(1, 300))
def test_every_power_of_two_and_the_largest_batch_are_warm(largest: int) -> None:
    """From a single image to a full batch, none larger than it, in growing order."""
    sizes = warm_sizes(largest)
    assert sizes[0] == 1
    assert sizes[-1] == largest
    assert list(sizes) == sorted(set(sizes))
    assert {1 << bit for bit in range(10) if 1 << bit <= largest} <= set(sizes)


def test_warming_up_runs_no_more_than_the_engine_takes(tmp_path: Path) -> None:
    """A batch of sixteen images is cut for an engine that takes four crops."""
    runtime = FaultyRuntime()
    warm_up(with_runtime(make_tiny_engine(tmp_path), runtime).bundle, 16)
    assert [len(call) for call in runtime.calls] == [1, 2, BATCH_MAX]


@pytest.mark.parametrize("runtime", [FaultyRuntime(WARM), FaultyRuntime(call_max=2)])
def test_an_engine_that_cannot_be_warmed_up_is_refused(
    tmp_path: Path, runtime: FaultyRuntime
) -> None:
    """A failure and a lack of memory, before any event has met it."""
    bundle = with_runtime(make_tiny_engine(tmp_path), runtime).bundle
    with pytest.raises(BundleError, match="while it is warmed up"):
        warm_up(bundle, 16)


PLACES = {"content-1": 0.8270873160058901, "größe:π/😀": 0.6664883907469302}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Engine]:
    """One engine for each role, on a runtime that says whether it was closed."""
    roles: tuple[Role, ...] = ("deciding", "canary", "shadow")
    directory = tmp_path_factory.mktemp("engines")
    return {role: make_tiny_engine(directory / role, role) for role in roles}


def fresh(engine: Engine) -> Engine:
    """The same in its role, opened anew."""
    return with_runtime(engine, FaultyRuntime())


def is_closed(engine: Engine) -> bool:
    """Whether its runtime was freed."""
    runtime = engine.bundle.runtime
    assert isinstance(runtime, FaultyRuntime)
    return runtime.closed


def test_the_canary_position_a_content_is_the_same_for_ever() -> None:
    """These numbers are a promise: another hash would hand contents from one engine to another."""
    assert canary_position("content-1") == pytest.approx(PLACES["content-1"], abs=1e-15)
    assert canary_position("größe:π/😀") == pytest.approx(PLACES["größe:π/😀"], abs=1e-15)


@given(content_id=st.text(min_size=1), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_growing_share_takes_more_and_gives_none_back(
    content_id: str, shares: tuple[float, float]
) -> None:
    """What the canary decides about at a small share, it decides about at a large one."""
    low, high = sorted(shares)
    assert not is_canary_content(content_id, low) or is_canary_content(content_id, high)
    assert is_canary_content(content_id, 1.0)
    assert not is_canary_content(content_id, 0.0)


def test_the_share_is_a_share() -> None:
    """Of ten thousand contents a tenth, within what chance does (five standard deviations)."""
    taken = sum(is_canary_content(f"product-{number}/1", 0.1) for number in range(10_000))
    assert abs(taken - 1000) < 150


def test_the_canary_decides_about_its_share_while_it_is_there(
    engines: dict[Role, Engine],
) -> None:
    """Before it has come and after it broke, the engine in place decides about everything."""
    stable, canary = fresh(engines["deciding"]), fresh(engines["canary"])
    slots = EngineSlots(stable, canary_share=0.5)
    names = [f"content-{number}" for number in range(40)]
    assert {slots.acquire(name) for name in names} == {stable}
    slots.install(canary)
    chosen = {name: slots.acquire(name) for name in names}
    assert chosen == {name: canary if is_canary_content(name, 0.5) else stable for name in names}
    assert set(chosen.values()) == {stable, canary}
    assert slots.evict(canary)
    assert not slots.evict(canary), "it has none any more"
    assert {slots.acquire(name) for name in names} == {stable}
    assert not slots.evict(stable), "something must decide"


def test_the_shadow_never_decides(engines: dict[Role, Engine]) -> None:
    """It is acquired separately, where there is one."""
    stable, shadow = fresh(engines["deciding"]), fresh(engines["shadow"])
    slots = EngineSlots(stable, canary_share=1.0)
    assert slots.acquire_shadow() is None
    slots.install(shadow)
    assert (slots.acquire_shadow(), slots.acquire("content")) == (shadow, stable)


def test_an_old_engine_is_freed_after_its_last_image(engines: dict[Role, Engine]) -> None:
    """Who acquired it before the swap may use it until released; later callers get the new one."""
    old, new = fresh(engines["deciding"]), fresh(engines["deciding"])
    slots = EngineSlots(old)
    acquired = [slots.acquire("a"), slots.acquire("b")]
    assert slots.install(new) is old
    assert slots.acquire("c") is new
    freed = threading.Thread(target=slots.close_when_idle, args=(old, lambda: False))
    freed.start()
    for engine in acquired:
        assert not is_closed(old)
        slots.release(engine)
    freed.join(timeout=10)
    assert not freed.is_alive()
    assert is_closed(old)
    assert not is_closed(new)


def test_a_stop_does_not_wait_for_an_old_engine(engines: dict[Role, Engine]) -> None:
    """It is left open for whoever still uses it, and freed with the rest."""
    old, new = fresh(engines["deciding"]), fresh(engines["deciding"])
    slots = EngineSlots(old)
    slots.acquire("a")
    slots.install(new)
    assert not slots.close_when_idle(old, lambda: True)
    assert not is_closed(old)
    slots.close()
    assert is_closed(old)
    assert is_closed(new)


def test_the_start_is_what_the_channel_is_at(releases: TinyReleases) -> None:
    """Fetched and verified; also where a copy lies there that is damaged."""
    loader = EngineLoader(settings_of(releases))
    assert loader.first().model.version == "0.1.0"
    (copy,) = (releases.directory / "cache" / "stable").iterdir()
    (copy / "model.onnx").write_bytes(b"damaged")
    assert loader.first().model.version == "0.1.0"


def test_a_start_without_its_store_is_from_the_latest_sound_copy(
    releases: TinyReleases, log: LogCapture
) -> None:
    """After a rollback that is the older version; a damaged copy is passed over; the log says so loudly."""
    following = Following(releases)
    releases.promote("0.2.0")
    following.poller.poll()
    releases.rollback()
    following.poller.poll()
    shutil.rmtree(releases.store_path)
    loader = EngineLoader(settings_of(releases))
    assert loader.first().model.version == "0.1.0"
    copies = sorted((releases.directory / "cache" / "stable").iterdir())
    (copies[-1] / "model.onnx").write_bytes(b"damaged")
    assert loader.first().model.version == "0.2.0"
    loud = [entry for entry in log.entries if entry["event"] == "STARTED_FROM_A_LOCAL_COPY"]
    assert [entry["version"] for entry in loud] == ["0.1.0", "0.2.0"]
    assert all(entry["log_level"] == "error" for entry in loud)
    assert "mount it or correct the path" in loud[0]["error"]


def test_a_start_from_a_bad_version_falls_back_too(releases: TinyReleases, log: LogCapture) -> None:
    """A restart must not turn a refused version into an outage."""
    EngineLoader(settings_of(releases)).first()
    other_golden(releases)
    assert EngineLoader(settings_of(releases)).first().model.version == "0.1.0"
    assert "STARTED_FROM_A_LOCAL_COPY" in [entry["event"] for entry in log.entries]


@pytest.mark.parametrize("empty", ["store", "channel"])
def test_a_start_with_nothing_to_start_from_fails(tmp_path: Path, empty: str) -> None:
    """With the reason that the store gives, not that of some copy."""
    releases = make_releases(tmp_path / "releases")
    if empty == "store":
        shutil.rmtree(releases.store_path)
    told = "is not there: mount" if empty == "store" else "stable is empty: promote a version"
    with pytest.raises(BundleError, match=told):
        EngineLoader(settings_of(releases)).first()


def test_a_copy_that_no_trusted_key_signed_starts_nothing(releases: TinyReleases) -> None:
    """What lies in the cache is checked as what comes from the store."""
    EngineLoader(settings_of(releases)).first()
    shutil.rmtree(releases.store_path)
    stranger = make_signer(releases.directory, "stranger")
    loader = EngineLoader(settings_of(releases, trusted_keys=(stranger.public,)))
    with pytest.raises(BundleError, match="is not there: mount"):
        loader.first()
