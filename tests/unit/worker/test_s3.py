"""Objects are read from a real S3 server; what it cannot give is told apart."""

import logging
from collections.abc import Iterator

import boto3  # type: ignore[import-untyped]  # it ships no types
import pytest
from moto.server import ThreadedMotoServer

from tests.unit.worker.image_server import IMAGE, image_server
from worker.errors import Poison, Retryable
from worker.fetch import ObjectReader
from worker.s3 import open_s3
from worker.settings import FetchSettings

KEYS = ["plain.jpg", "a b/ü+c&d?#.png", "a%20b", "x" * 1000]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server with the bucket ``uploads``: each object holds its own key."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="reader",
        aws_secret_access_key="hidden",
    )
    location = {"LocationConstraint": "eu-central-1"}
    client.create_bucket(Bucket="uploads", CreateBucketConfiguration=location)
    for key in KEYS:
        client.put_object(Bucket="uploads", Key=key, Body=key.encode())
    yield url
    server.stop()


def make_store(endpoint: str, **changes: object) -> ObjectReader:
    """A store with the credentials of one who may read."""
    settings = {
        "schemes": ("s3",),
        "s3_endpoint": endpoint,
        "s3_region": "eu-central-1",
        "s3_access_key_id": "reader",
        "s3_secret_access_key": "hidden",
        "timeout_s": 2.0,
    } | changes
    return open_s3(FetchSettings.model_validate(settings))


def refusal(store: ObjectReader, bucket: str, key: str) -> Poison:
    """The Poison that reading this object ends in."""
    with pytest.raises(Poison) as caught:
        store.read(bucket, key, 10_000)
    assert caught.value.stage == "fetch"
    return caught.value


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_read_whatever_its_key(endpoint: str, key: str) -> None:
    """The key is not quoted twice, nor unquoted."""
    assert make_store(endpoint).read("uploads", key, 10_000) == key.encode()


def test_what_is_not_there_is_poison(endpoint: str) -> None:
    """Neither the object nor the bucket; the message names both."""
    error = refusal(make_store(endpoint), "uploads", "missing.jpg")
    assert (error.code, error.message) == ("not_found", "s3://uploads/missing.jpg does not exist")
    assert refusal(make_store(endpoint), "no-bucket", "plain.jpg").code == "not_found"


def test_without_a_key_the_request_is_anonymous(endpoint: str) -> None:
    """This server answers 403 to it: asking again would not help."""
    store = make_store(endpoint, s3_access_key_id=None, s3_secret_access_key=None)
    error = refusal(store, "uploads", "plain.jpg")
    assert (error.code, error.message) == (
        "forbidden",
        "the worker may not read s3://uploads/plain.jpg",
    )


@pytest.mark.parametrize("key", ["a//b", "a/../b", "..", ".", "/plain.jpg", "plain.jpg/", "a\nb"])
def test_keys_that_would_name_another_object_are_refused(endpoint: str, key: str) -> None:
    """The client would normalise them; the message says what to do."""
    error = refusal(make_store(endpoint), "uploads", key)
    assert (error.code, "rename the object" in error.message) == ("unsupported_key", True)


def test_a_large_object_is_not_read_to_its_end() -> None:
    """The beginning is enough to see that it is too large."""
    with image_server() as server:
        body = make_store(server.url).read("image", "large", 1000)
    assert 1000 < len(body) <= len(IMAGE)


@pytest.mark.parametrize(
    ("bucket", "key"), [("503", "503"), ("500", "500"), ("short", "x"), ("trickle", "body")]
)
def test_a_store_in_trouble_may_be_asked_again(bucket: str, key: str) -> None:
    """Errors of the server, answers that break off, answers that never end."""
    with image_server() as server, pytest.raises(Retryable, match="did not answer"):
        make_store(server.url, timeout_s=0.4).read(bucket, key, 100_000)


def test_a_store_that_is_away_may_be_asked_again() -> None:
    """The message holds no address and no credentials."""
    with pytest.raises(Retryable) as caught:
        make_store("http://127.0.0.1:1").read("uploads", "plain.jpg", 1000)
    assert str(caught.value) == "the object store did not answer: GenericError"
