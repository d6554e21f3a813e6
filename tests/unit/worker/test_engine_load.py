"""A start is from what the channel is at, or from the latest sound copy, or not at all."""

import shutil
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from engines.bundle.manifest import BundleError
from tests.support.releases import TinyReleases, make_releases
from tests.support.signing import make_signer
from tests.unit.worker.following import Following, other_golden, settings_of
from worker.engine import EngineLoader


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
    assert "mount or correct it" in loud[0]["error"]


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
