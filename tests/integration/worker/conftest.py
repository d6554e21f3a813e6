"""The fixtures of the tests that start workers."""

from tests.support.worker_fixtures import bundle, images, lane, releases, shared_lane, slow_bundle

__all__ = ["bundle", "images", "lane", "releases", "shared_lane", "slow_bundle"]
