"""Object-created notifications of S3 and MinIO are read as they are."""

import json
from datetime import UTC, datetime

import pytest

from tests.unit.worker.notifications import AWS, MINIO, aws
from tests.unit.worker.samples import EVENT_TIME, poison, record
from worker.event import parse_event


@pytest.mark.parametrize("notification", [MINIO, AWS])
def test_a_bucket_notification_names_object_bucket_and_version(
    notification: dict[str, object],
) -> None:
    """Notifications are read as these systems send them."""
    found = parse_event(record(json.dumps(notification).encode(), key=b"uploads/whatever"))
    if notification is MINIO:
        assert found.uri == "s3://uploads/2026/a%2Bb%26c%20d.jpg"
        assert found.content_id == "uploads/2026/a+b&c d.jpg"
        assert found.event_id == "uploads/2026/a+b&c d.jpg@18A1F2B3C4D5E6F7"
        assert found.source == "minio:s3/uploads"
        assert found.event_time == datetime(2026, 2, 2, 2, 40, 0, 123000, tzinfo=UTC)
    else:
        assert found.uri == "s3://my-bucket/holiday/beach%201.png"
        assert found.content_id == "my-bucket/holiday/beach 1.png"
        assert found.event_id.endswith("@096fKKXTRTtl3on89fVO.nfljtsv6qko")
        assert (found.source, found.event_time) == ("aws:s3/my-bucket", EVENT_TIME)
    assert found.payload is None


@pytest.mark.parametrize(
    ("document", "code", "told"),
    [
        (aws(eventName="ObjectRemoved:Delete"), "not_created", "s3:ObjectCreated:*"),
        ({"Records": AWS["Records"] * 2}, "many_records", "split it before sending"),
        ({"Records": []}, "invalid_event", "Records: List should have at least 1 item"),
        ({"Records": "x"}, "invalid_event", "Records: Input should be a valid list"),
        (
            aws(s3={"bucket": {"name": "b"}}),
            "invalid_event",
            "Records.0.s3.object: Field required",
        ),
        (
            aws(s3={"bucket": {"name": "b/../c"}, "object": {"key": "k"}}),
            "invalid_event",
            "Records.0.s3.bucket.name",
        ),
        (
            aws(s3={"bucket": {"name": "b"}, "object": {"key": "k" * 600}}),
            "content_id",
            "exceed 512 characters",
        ),
        (aws(eventTime="yesterday"), "invalid_event", "Records.0.eventTime: expected an RFC 3339"),
        (
            {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"},
            "unknown_format",
            "neither a CloudEvent (no specversion) nor a bucket notification (no Records)",
        ),
    ],
)
def test_a_notification_that_cannot_be_used(
    document: dict[str, object], code: str, told: str
) -> None:
    """The message says which field, or how to subscribe."""
    error = poison(record(json.dumps(document).encode()))
    assert error.code == code
    assert told in error.message
