"""A slot follows its channel, on real stores and engines: to a new version, back, and never to a bad one."""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from structlog.testing import LogCapture

from engines.bundle.manifest import read_manifest
from engines.bundle.verify import Bundle
from engines.release.channels import PromotionRequest, promote
from engines.release.gate import Margins
from engines.release.records import Change, Version
from engines.release.store import open_store
from engines.runtime import RuntimeFailure
from tests.support.bundles import rewritten
from tests.support.releases import TinyReleases, make_releases
from tests.support.signing import make_signer
from tests.unit.worker.following import RETRY_S, Following, other_golden, resigned
from tests.unit.worker.samples import prepared
from tests.unit.worker.services import make_services
from worker.engine import Engine, EngineLoader, EngineSlots, Role
from worker.release_cache import ABANDONED_S
from worker.rollout import Candidates, ReleasePoller, RolloutThread
from worker.settings import EngineSettings, Settings


def test_a_new_version_is_installed_and_a_rollback_brings_the_old_one_back(
    releases: TinyReleases, log: LogCapture
) -> None:
    """The replaced engine is closed, metric and log report it, and nothing happens while the channel stays."""
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
    ("spoil", "error"),
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
    releases: TinyReleases, log: LogCapture, spoil: Callable[[TinyReleases], None], error: str
) -> None:
    """One log line and one count report it, however often the channel is polled; the next good one is installed."""
    following = Following(releases)
    in_place = following.slots.installed("deciding")
    spoil(releases)
    for _ in range(3):
        following.poller.poll()
    assert following.slots.installed("deciding") is in_place
    assert (following.count("refused"), following.count("swapped")) == (1, 0)
    (refused,) = [entry for entry in log.entries if entry["event"] == "engine_refused"]
    assert error in refused["error"]
    assert (refused["version"], refused["stays"]) == ("tiny 0.2.0", "tiny 0.1.0")
    following.now_s += RETRY_S
    following.poller.poll()
    assert following.count("refused") == 2, "after a long pause it is tried again"
    releases.promote("0.3.0")
    following.poller.poll()
    assert (following.version, following.shown()) == ("0.3.0", ["0.3.0"])


def test_a_version_without_the_wanted_thresholds_is_refused(releases: TinyReleases) -> None:
    """``decide.threshold_set`` names a set that the new version lacks: found before it is installed."""
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
    """Whatever is raised, the thread goes on and the old engine stays; the failed one is closed."""
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
    """Before a poll or between two files of a download; once it is back, the new version is installed."""
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
    assert len(away) == 1, "logged once, however many polls"
    assert "mount it or correct the path" in away[0]["error"]
    aside.rename(releases.store_path)
    following.poller.poll()
    assert (following.version, following.count("refused")) == ("0.2.0", 0)
    assert [entry["event"] for entry in log.entries].count("channel_available") == 1
    leftovers = list((releases.directory / "cache" / "stable").glob(".*"))
    assert leftovers == [], "nothing half-fetched lies about"


def test_a_canary_is_installed_in_an_empty_slot_and_evicted_when_it_breaks(
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
    """It has left its slot when the next one comes, and must still be closed."""
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


def test_an_error_of_one_poller_does_not_stop_another(releases: TinyReleases) -> None:
    """Every channel is polled, whatever one of them raises."""
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


A, B = (
    Version(name="tiny", version=version, manifest_sha256=digit * 64)
    for version, digit in (("0.1.0", "a"), ("0.2.0", "b"))
)


def change(after: Version, serial: int = 2) -> Change:
    """A channel's change to that version."""
    return Change.model_validate(
        {
            "id": uuid.uuid4().hex,
            "serial": serial,
            "channel": "stable",
            "action": "promote",
            "at": datetime(2026, 11, 1, tzinfo=UTC),
            "who": "tests",
            "before": None,
            "after": after,
            "reason": "",
            "signed_by": None,
        }
    )


def test_what_is_in_place_is_not_loaded_again() -> None:
    """Also where the channel has gone away from it and come back between two looks."""
    state = Candidates(A, RETRY_S)
    assert not state.wanted(change(A), 0.0)
    assert not state.wanted(change(A, serial=4), 0.0)
    assert state.wanted(change(B), 0.0)


def test_an_empty_slot_wants_any_version() -> None:
    """As a canary's or a shadow's does at the start."""
    assert Candidates(None, RETRY_S).wanted(change(A), 0.0)


def test_a_refused_version_is_left_alone_until_the_channel_moves_or_long_after() -> None:
    """The same version promoted again is another change: somebody has looked at it."""
    state, bad = Candidates(A, RETRY_S), change(B)
    state.refuse(bad, 100.0)
    assert state.installed == A
    assert not state.wanted(bad, 100.1)
    assert not state.wanted(bad, 100.0 + RETRY_S - 1)
    assert state.wanted(bad, 100.0 + RETRY_S)
    assert state.wanted(change(B, serial=3), 100.1)
    assert not state.wanted(change(A, serial=3), 100.1), "a rollback to what is in place"


def test_a_broken_version_leaves_an_empty_slot_and_counts_as_refused() -> None:
    """The version before it may come back at once; it itself only after the pause."""
    state, broken = Candidates(None, RETRY_S), change(B)
    state.accept(broken)
    assert not state.wanted(broken, 0.0)
    state.evict(broken, 50.0)
    assert state.installed is None
    assert not state.wanted(broken, 51.0)
    assert state.wanted(change(A, serial=3), 51.0)


@given(times=st.lists(st.floats(0.01, RETRY_S / 50), max_size=50))
def test_a_bad_version_is_tried_once_however_often_one_looks(times: list[float]) -> None:
    """No busy loop: all looks within the pause lead to one attempt."""
    state, bad, now_s, tries = Candidates(A, RETRY_S), change(B), 0.0, 0
    for pause_s in times:
        now_s += pause_s
        if state.wanted(bad, now_s):
            tries += 1
            state.refuse(bad, now_s)
    assert tries == min(1, len(times))


BUCKET = "models"
URL = f"s3://{BUCKET}/detector"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """A store with one empty bucket, named by the environment as it would be in production."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    endpoint = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "worker",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield running
    running.stop()


def promote_to(made: TinyReleases, version: str) -> None:
    """Take the stable channel in the bucket to that version."""
    request = PromotionRequest(
        "tests", datetime.now(UTC), "tiny bundles have no figures", force=True
    )
    bundle = made.make(version)
    promote(open_store(URL), "stable", bundle, request, made.signer.trust, Margins())


def test_a_channel_in_s3_is_followed(server: ThreadedMotoServer, tmp_path: Path) -> None:
    """To the version that it is at, and to the next."""
    made = make_releases(tmp_path)
    promote_to(made, "0.1.0")
    engine = EngineSettings(
        store=URL, cache_dir=tmp_path / "cache", trusted_keys=(made.signer.public,)
    )
    settings = Settings(engine=engine)
    loader = EngineLoader(settings)
    slots = EngineSlots(loader.first())
    services = make_services(slots, settings=settings)
    poller = ReleasePoller("deciding", loader, services, lambda: False)
    promote_to(made, "0.2.0")
    poller.poll()
    installed = slots.installed("deciding")
    assert installed is not None
    assert installed.model.version == "0.2.0"
