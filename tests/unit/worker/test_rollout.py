"""A seat follows its channel, on real stores and engines: to the new, back, and never to what is bad."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from engines.bundle.manifest import read_manifest
from engines.bundle.verify import Bundle
from engines.runtime import RuntimeFailure
from tests.support.bundles import rewritten
from tests.support.releases import TinyReleases
from tests.support.signing import make_signer
from tests.unit.worker.following import RETRY_S, Following, other_golden, resigned
from tests.unit.worker.samples import prepared
from worker.engine import Engine, EngineLoader, Role
from worker.release_cache import ABANDONED_S
from worker.rollout import ReleasePoller, RolloutThread


def test_a_new_version_takes_the_seat_and_a_rollback_gives_it_back(
    releases: TinyReleases, log: LogCapture
) -> None:
    """The one before is freed, metric and log tell of it, and nothing happens while nothing moves."""
    following = Following(releases)
    first = following.slots.installed("deciding")
    following.poller.poll()
    assert (following.version, following.count("swapped")) == ("0.1.0", 0)
    releases.promote("0.2.0", bias=1.0)
    following.poller.poll()
    following.poller.poll()
    assert (following.version, following.count("swapped")) == ("0.2.0", 1)
    assert following.shown() == ["0.2.0"]
    assert first is not None
    with pytest.raises(RuntimeFailure, match="was closed"):
        first.bundle.runtime.infer(prepared().image_NHWC)
    releases.rollback()
    following.poller.poll()
    assert (following.version, following.count("swapped")) == ("0.1.0", 2)
    events = [entry["event"] for entry in log.entries]
    assert events.count("engine_swapped") == events.count("engine_closed") == 2


def wrong_key(releases: TinyReleases) -> None:
    """Signed by somebody else."""
    bundle = releases.make("0.2.0")
    (bundle / "signatures.json").unlink()
    make_signer(releases.directory, "stranger").sign(bundle)
    releases.smuggle(bundle)


def unsigned(releases: TinyReleases) -> None:
    """Signed by nobody."""
    bundle = releases.make("0.2.0")
    (bundle / "signatures.json").unlink()
    releases.smuggle(bundle)


def altered(releases: TinyReleases) -> None:
    """The store's copy of the model has another byte."""
    bundle = releases.make("0.2.0", bias=1.0)
    releases.smuggle(bundle)
    blob = releases.blob_of(bundle)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


def truncated(releases: TinyReleases) -> None:
    """The store's copy of the model ends early."""
    bundle = releases.make("0.2.0", bias=1.0)
    releases.smuggle(bundle)
    blob = releases.blob_of(bundle)
    blob.write_bytes(blob.read_bytes()[:-10])


def missing(releases: TinyReleases) -> None:
    """The store's copy of the model is gone."""
    bundle = releases.make("0.2.0", bias=1.0)
    releases.smuggle(bundle)
    releases.blob_of(bundle).unlink()


def other_preprocessing(releases: TinyReleases) -> None:
    """Its crops were made by code that this release has not."""
    bundle = releases.make("0.2.0")
    manifest = read_manifest(bundle)
    spec = manifest.preprocess.model_copy(update={"version": "0"})
    rewritten(bundle, preprocess=spec)
    releases.smuggle(resigned(releases, bundle))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (wrong_key, "Have it signed by one of them"),
        (unsigned, "is not signed"),
        (altered, "altered or cut short in the store"),
        (truncated, "altered or cut short in the store"),
        (missing, "missing from the store"),
        (other_golden, "over the tolerance"),
        (other_preprocessing, "was made with preprocessing '0'"),
    ],
)
def test_a_bad_version_is_refused_once_and_the_old_one_stays(
    releases: TinyReleases, log: LogCapture, spoil: Callable[[TinyReleases], None], told: str
) -> None:
    """One line and one count say so, however often the channel is looked at; the next good one is taken."""
    following = Following(releases)
    in_place = following.slots.installed("deciding")
    spoil(releases)
    for _ in range(3):
        following.poller.poll()
    assert following.slots.installed("deciding") is in_place
    assert (following.count("refused"), following.count("swapped")) == (1, 0)
    (refused,) = [entry for entry in log.entries if entry["event"] == "engine_refused"]
    assert told in refused["error"]
    assert (refused["version"], refused["stays"]) == ("tiny 0.2.0", "tiny 0.1.0")
    following.now_s += RETRY_S
    following.poller.poll()
    assert following.count("refused") == 2, "after a long pause it is tried again"
    releases.promote("0.3.0")
    following.poller.poll()
    assert (following.version, following.shown()) == ("0.3.0", ["0.3.0"])


def test_a_version_without_the_wanted_thresholds_is_refused(releases: TinyReleases) -> None:
    """``decide.threshold_set`` names a set that the new one has not: found before it has its seat."""
    following = Following(releases, threshold_set="default")
    bundle = releases.make("0.2.0")
    manifest = read_manifest(bundle)
    renamed = tuple(one.model_copy(update={"id": "strict"}) for one in manifest.threshold_sets)
    rewritten(bundle, threshold_sets=renamed, default_threshold_set="strict")
    releases.smuggle(resigned(releases, bundle))
    following.poller.poll()
    assert (following.version, following.count("refused")) == ("0.1.0", 1)


def test_a_version_that_fails_while_it_is_warmed_up_is_refused(
    releases: TinyReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised, the watch goes on and the old one stays; the failed one is freed."""
    following = Following(releases)
    releases.promote("0.2.0")

    failed: list[Bundle] = []

    def broken(bundle: Bundle, _batch_images: int) -> None:
        failed.append(bundle)
        raise ZeroDivisionError("a bug of the runtime's")

    monkeypatch.setattr("worker.engine.warm_up", broken)
    following.poller.poll()
    assert (following.version, following.count("refused")) == ("0.1.0", 1)
    with pytest.raises(RuntimeFailure, match="was closed"):
        failed[0].runtime.infer(prepared().image_NHWC)


def test_a_store_that_goes_away_while_it_is_read_changes_nothing(
    releases: TinyReleases, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a look or between two files of a fetch; once it is back, the new version is taken."""
    following = Following(releases)
    releases.promote("0.2.0", bias=1.0)
    aside = releases.directory / "aside"
    read = type(releases.store).read

    def read_once_more(store: object, key: str) -> bytes | None:
        found = read(store, key)  # type: ignore[arg-type]
        if key.startswith("blobs/") and releases.store_path.is_dir():
            releases.store_path.rename(aside)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(type(releases.store), "read", read_once_more)
        following.poller.poll()
    assert (following.version, following.count("store_away")) == ("0.1.0", 1)
    for _ in range(3):
        following.poller.poll()
    away = [entry for entry in log.entries if entry["event"] == "channel_unavailable"]
    assert len(away) == 1, "told once, however often it is looked"
    assert "mount or correct it" in away[0]["error"]
    aside.rename(releases.store_path)
    following.poller.poll()
    assert (following.version, following.count("refused")) == ("0.2.0", 0)
    assert [entry["event"] for entry in log.entries].count("channel_available") == 1
    leftovers = list((releases.directory / "cache" / "stable").glob(".*"))
    assert leftovers == [], "nothing half-fetched lies about"


def test_a_canary_comes_to_an_empty_seat_and_loses_it_when_it_breaks(
    releases: TinyReleases,
) -> None:
    """An empty channel is no error; a broken canary is not tried again until its channel moves."""
    following = Following(releases, "canary")
    following.poller.poll()
    assert following.slots.installed("canary") is None
    releases.promote("0.2.0", "canary", bias=1.0)
    following.poller.poll()
    canary = following.slots.installed("canary")
    assert canary is not None
    assert (canary.model.version, canary.mode) == ("0.2.0", "canary")
    assert following.slots.evict(canary)
    for _ in range(2):
        following.poller.poll()
    assert following.slots.installed("canary") is None
    assert following.shown() == []
    releases.promote("0.3.0", "canary")
    following.poller.poll()
    assert (following.version, following.count("swapped")) == ("0.3.0", 2)


def test_a_canary_that_breaks_while_its_successor_is_loaded_is_freed(
    releases: TinyReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost its seat already when the next one comes: it must not stay open for that."""
    releases.promote("0.2.0", "canary")
    following = Following(releases, "canary")
    following.poller.poll()
    broken = following.slots.installed("canary")
    assert broken is not None
    releases.promote("0.3.0", "canary")
    load = EngineLoader.load

    def load_meanwhile(loader: EngineLoader, directory: Path, role: Role) -> Engine:
        following.slots.evict(broken)
        return load(loader, directory, role)

    monkeypatch.setattr(EngineLoader, "load", load_meanwhile)
    following.poller.poll()
    assert following.version == "0.3.0"
    with pytest.raises(RuntimeFailure, match="was closed"):
        broken.bundle.runtime.infer(prepared().image_NHWC)


def test_one_broken_seat_does_not_keep_another_from_its_look(releases: TinyReleases) -> None:
    """The watch looks at every channel whatever one of them does."""
    following = Following(releases)

    class Broken(ReleasePoller):
        def poll(self) -> None:
            raise KeyError("a bug")

    broken = Broken("deciding", following.loader, following.services, lambda: False)
    releases.promote("0.2.0")
    RolloutThread([broken, following.poller], lambda _s: True, 1.0).poll()
    assert following.version == "0.2.0"


def test_copies_of_old_versions_do_not_fill_the_disk(releases: TinyReleases) -> None:
    """The version in place and two to fall back on stay, whatever number their channel has reached."""
    following = Following(releases)
    abandoned, current = (
        releases.directory / "cache" / "stable" / name for name in (".killed", ".fetching")
    )
    abandoned.mkdir()
    current.mkdir()
    long_ago_s = abandoned.stat().st_mtime - 2 * ABANDONED_S
    os.utime(abandoned, (long_ago_s, long_ago_s))
    for number in range(2, 7):
        releases.promote(f"0.{number}.0")
        following.poller.poll()
    kept = sorted(path.name for path in (releases.directory / "cache" / "stable").iterdir())
    assert kept.pop(0) == ".fetching", "another worker of this machine may be at it"
    assert kept == ["00000004-tiny-0.4.0", "00000005-tiny-0.5.0", "00000006-tiny-0.6.0"]
