"""A seat follows a channel in S3, through the store's own protocol."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3  # type: ignore[import-untyped]  # it ships no types
import pytest
from moto.server import ThreadedMotoServer

from engines.release.channels import PromotionRequest, promote
from engines.release.gate import Margins
from engines.release.store import open_store
from tests.support.releases import TinyReleases, make_releases
from tests.unit.worker.services import make_services
from worker.engine import EngineLoader, EngineSlots
from worker.rollout import ReleasePoller
from worker.settings import EngineSettings, Settings

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
    asked = PromotionRequest("tests", datetime.now(UTC), "tiny bundles have no figures", force=True)
    bundle = made.make(version)
    promote(open_store(URL), "stable", bundle, asked, made.signer.trust, Margins())


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
