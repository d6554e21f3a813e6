"""The fixtures of the tests that start workers."""

from tests.support.worker_fixtures import (
    bundle,
    images,
    lane,
    own_logging,
    shared_lane,
    slow_bundle,
)

__all__ = ["bundle", "images", "lane", "own_logging", "shared_lane", "slow_bundle"]
