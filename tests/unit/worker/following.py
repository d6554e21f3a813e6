"""A slot that follows a channel of tiny releases, and versions that no loader may accept."""

import shutil
from pathlib import Path

from engines.bundle.manifest import read_manifest, write_manifest
from tests.support.releases import TinyReleases
from tests.unit.worker.services import make_services
from worker.engine import EngineLoader, EngineSlots, Role
from worker.rollout import ReleasePoller
from worker.settings import Settings

RETRY_S = 3600.0


def settings_of(releases: TinyReleases, **more: object) -> Settings:
    """Settings of a worker that follows that store."""
    given = {name.partition("__")[2]: value for name, value in releases.settings().items()}
    decide = {"threshold_set": more.pop("threshold_set", None)}
    return Settings.model_validate({"engine": given | more, "decide": decide})


class Following:
    """One slot at its start, and a clock that the test sets."""

    def __init__(self, releases: TinyReleases, role: Role = "deciding", **more: object) -> None:
        if role == "canary":
            more["canary_share"] = 0.5
        settings = settings_of(releases, **more)
        assert settings.engine.retry_refused_s == RETRY_S
        self.loader = EngineLoader(settings)
        self.slots = EngineSlots(self.loader.first())
        self.now_s = 0.0
        self.role: Role = role
        self.services = make_services(
            self.slots, settings=settings, clock=lambda: self.now_s, pause=lambda _s: True
        )
        self.metrics = self.services.metrics
        self.poller = ReleasePoller(role, self.loader, self.services, lambda: False)

    @property
    def version(self) -> str | None:
        """The version in the slot."""
        engine = self.slots.installed(self.role)
        return None if engine is None else engine.model.version

    def count(self, outcome: str) -> float:
        """How many versions came to that."""
        labels = {"role": self.role, "outcome": outcome}
        name = "synthgate_engine_swaps_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def shown(self) -> list[str]:
        """The versions that ``synthgate_engine_info`` shows for this role."""
        return [
            sample.labels["version"]
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "synthgate_engine_info" and sample.labels["role"] == self.role
        ]


def other_golden(releases: TinyReleases) -> None:
    """The model is not the one whose outputs the trainer recorded."""
    bundle, other = releases.make("0.2.0"), releases.make("0.2.0", bias=1.0)
    shutil.copy(other / "model.onnx", bundle / "model.onnx")
    releases.smuggle(resigned(releases, bundle))


def resigned(releases: TinyReleases, bundle: Path) -> Path:
    """The bundle as it is now, signed by the trusted key."""
    (bundle / "signatures.json").unlink()
    write_manifest(bundle, read_manifest(bundle))
    return releases.signer.sign(bundle)
