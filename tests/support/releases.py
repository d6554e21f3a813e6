"""A store of releases, and versions of the tiny bundle in it: good ones by promotion, bad ones past it.

In: a directory. Out: :class:`TinyReleases`, which moves channels as a release job does.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines.bundle.manifest import read_manifest
from engines.release.channels import PromotionRequest, promote, rollback
from engines.release.gate import Margins
from engines.release.layout import publish
from engines.release.measure import Timing
from engines.release.records import Change, Channel, append, current
from engines.release.store import DirectoryStore
from tests.support.bundles import make_tiny_bundle
from tests.support.signing import Signer, make_signer

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class TinyReleases:
    """A store in a directory, and the key that signs what goes in."""

    directory: Path
    signer: Signer

    @property
    def store_path(self) -> Path:
        """What ``engine.store`` names."""
        return self.directory / "store"

    @property
    def store(self) -> DirectoryStore:
        """The store itself."""
        return DirectoryStore(self.store_path)

    def settings(self, cache: str = "cache", **more: object) -> dict[str, object]:
        """Settings of a worker that follows this store, in the form that a lane takes."""
        return {
            "engine__bundle": None,
            "engine__store": str(self.store_path),
            "engine__cache_dir": self.directory / cache,
            "engine__trusted_keys": str(self.signer.public),
            "engine__poll_interval_s": 0.1,
            **more,
        }

    def make(self, version: str, *, bias: float = 0.125, crop_px: int = 32) -> Path:
        """A signed bundle of that version; another bias is another model."""
        directory = self.directory / "made" / f"{version}-{uuid.uuid4().hex[:6]}"
        make_tiny_bundle(directory, version=version, bias=bias, crop_px=crop_px)
        return self.signer.sign(directory)

    def promote(
        self, version: str, channel: Channel = "stable", *, bias: float = 0.125, crop_px: int = 32
    ) -> Change:
        """Take the channel to a new version, verified as every promotion is."""
        bundle = self.make(version, bias=bias, crop_px=crop_px)
        asked = PromotionRequest(
            "tests", datetime.now(UTC), "tiny bundles have no figures", force=True
        )
        trust, timing = self.signer.trust, Timing(skip=True)
        return promote(self.store, channel, bundle, asked, trust, Margins(), timing)

    def rollback(self, channel: Channel = "stable") -> Change:
        """Take the channel back by one."""
        asked = PromotionRequest("tests", datetime.now(UTC), "back")
        return rollback(self.store, channel, asked, self.signer.trust)

    def smuggle(self, bundle: Path, channel: Channel = "stable") -> Change:
        """Take the channel to a bundle past every check of a promotion, as who may write to the store can."""
        before = current(self.store, channel)
        change = Change.model_validate(
            {
                "id": uuid.uuid4().hex,
                "serial": before.serial + 1 if before else 1,
                "channel": channel,
                "action": "promote",
                "at": datetime.now(UTC),
                "who": "tests",
                "before": before.after if before else None,
                "after": publish(self.store, bundle),
                "reason": "past the checks",
                "signed_by": self.signer.key_id,
            }
        )
        append(self.store, change)
        return change

    def blob_of(self, bundle: Path) -> Path:
        """Where the store keeps the model of a bundle."""
        manifest = read_manifest(bundle)
        (sha256,) = (one.sha256 for one in manifest.files if one.path == manifest.model_file)
        return self.store_path / "blobs" / sha256


def make_releases(directory: Path) -> TinyReleases:
    """An empty store, and a key of its own."""
    (directory / "store").mkdir(parents=True)
    return TinyReleases(directory, make_signer(directory))
