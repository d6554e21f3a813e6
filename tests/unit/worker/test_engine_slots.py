"""Who decides, who still uses whom: stable shares of a canary, and engines freed after their last image."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.engines import FaultyRuntime, make_tiny_engine, with_runtime
from worker.engine import Engine, EngineSlots, Role, canary_position, is_canary_content

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
    """It is leased apart, where there is one."""
    stable, shadow = fresh(engines["deciding"]), fresh(engines["shadow"])
    slots = EngineSlots(stable, canary_share=1.0)
    assert slots.acquire_shadow() is None
    slots.install(shadow)
    assert (slots.acquire_shadow(), slots.acquire("content")) == (shadow, stable)


def test_an_old_engine_is_freed_after_its_last_image(engines: dict[Role, Engine]) -> None:
    """Whoever leased it before the exchange may use it until then; who comes later gets the new one."""
    old, new = fresh(engines["deciding"]), fresh(engines["deciding"])
    slots = EngineSlots(old)
    leased = [slots.acquire("a"), slots.acquire("b")]
    assert slots.install(new) is old
    assert slots.acquire("c") is new
    freed = threading.Thread(target=slots.close_when_idle, args=(old, lambda: False))
    freed.start()
    for engine in leased:
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
