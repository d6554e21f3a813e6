"""Images by http: what a real server says is read, retried or refused, and nothing hangs."""

import itertools
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from tests.unit.worker.image_server import IMAGE, ImageServer, image_server
from worker.errors import Poison, Retryable
from worker.fetch import Fetcher
from worker.settings import FetchSettings

MAX_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    """One server for all tests here; each uses paths of its own."""
    with image_server() as running:
        yield running


def trusting_nobody() -> ssl.SSLContext:
    """For tests without https: to read the system's authorities takes a while."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def make_fetcher(
    pause: Callable[[float], bool] = lambda _seconds: False,
    max_bytes: int = MAX_BYTES,
    **changes: object,
) -> Fetcher:
    """A fetcher that may read loopback and does not wait between attempts."""
    settings = {
        "schemes": ("http",),
        "allow_private_networks": True,
        "timeout_s": 5.0,
        "attempts": 1,
    } | changes
    checked = FetchSettings.model_validate(settings)
    return Fetcher(checked, max_bytes, pause, time.monotonic, None, trusting_nobody())


def refusal(fetcher: Fetcher, uri: str) -> Poison:
    """The Poison, at stage ``fetch``, that this URI ends in."""
    with pytest.raises(Poison) as caught:
        fetcher.fetch(uri)
    assert caught.value.stage == "fetch"
    return caught.value


@pytest.mark.parametrize("path", ["/image/1.jpg", "/image/ü ä.jpg?a=b c#part", "/chunked/whole"])
def test_the_body_comes_back_as_it_is(server: ImageServer, path: str) -> None:
    """With a length, in chunks, and where the URI needs escaping."""
    assert make_fetcher().fetch(server.url + path) == IMAGE


def test_a_compressed_answer_is_not_unpacked(server: ImageServer) -> None:
    """A kilobyte of gzip could be gigabytes: the bytes are taken as they were sent."""
    assert make_fetcher().fetch(f"{server.url}/gzip")[:2] == b"\x1f\x8b"


def test_the_host_is_sent_without_credentials(server: ImageServer) -> None:
    """The Host header names what the URI names, with its port; user and password stay here."""
    make_fetcher().fetch(f"http://user:secret@localhost:{server.port}/image/host")
    assert server.hosts[-1] == f"localhost:{server.port}"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "not_found", "the server answered 404: the image does not exist"),
        (410, "not_found", "does not exist any more"),
        (403, "forbidden", "the worker may not read the image"),
        (401, "forbidden", "the worker may not read the image"),
        (400, "unexpected_status", "correct the uri"),
        (206, "unexpected_status", "expected 200"),
    ],
)
def test_an_answer_that_is_no_image_is_not_asked_for_again(
    server: ImageServer, status: int, code: str, told: str
) -> None:
    """Another attempt would get the same."""
    error = refusal(make_fetcher(attempts=3), f"{server.url}/{status}")
    assert (error.code, error.attempts) == (code, 1)
    assert told in error.message
    assert server.requests[f"/{status}"] == 1


def test_a_server_in_trouble_is_asked_again(server: ImageServer) -> None:
    """503 twice, then the image: the pauses double."""
    pauses_s = list[float]()

    def pause(seconds: float) -> bool:
        pauses_s.append(seconds)
        return False

    fetcher = make_fetcher(pause, attempts=3, backoff_s=0.5)
    assert fetcher.fetch(f"{server.url}/shaky/2") == IMAGE
    assert pauses_s == [0.5, 1.0]


def test_the_last_attempt_is_the_last(server: ImageServer) -> None:
    """Then the event is a dead letter, which says how often it was tried."""
    error = refusal(make_fetcher(attempts=2), f"{server.url}/503")
    assert (error.code, error.attempts) == ("unreachable", 2)
    assert error.message == "the server answered 503 (2 attempts)"
    assert server.requests["/503"] == 2


def test_a_stop_between_attempts_leaves_the_event_to_another_worker(server: ImageServer) -> None:
    """It is not poison only because this worker had no time."""
    with pytest.raises(Retryable):
        make_fetcher(lambda _seconds: True, attempts=3).fetch(f"{server.url}/500")
    assert server.requests["/500"] == 1


def test_a_server_that_is_not_there(server: ImageServer) -> None:
    """Refused connections and unknown names are retried, then told."""
    refused = refusal(make_fetcher(attempts=2), "http://127.0.0.1:1/image")
    assert (refused.code, refused.attempts) == ("unreachable", 2)
    assert refused.message == "127.0.0.1 does not answer: ConnectionRefusedError (2 attempts)"
    unknown = refusal(make_fetcher(), "http://nowhere.invalid/image")
    assert "nowhere.invalid cannot be resolved" in unknown.message


@pytest.mark.parametrize("path", ["/image/large", "/chunked/whole", "/endless"])
def test_too_large_a_body_is_not_read_to_its_end(server: ImageServer, path: str) -> None:
    """With and without a length, even without an end."""
    error = refusal(make_fetcher(max_bytes=1000), server.url + path)
    assert error.code == "too_many_bytes"
    assert "more than 1000 bytes (decode.max_bytes)" in error.message


@pytest.mark.parametrize("size", [len(IMAGE) - 1, len(IMAGE)])
def test_the_limit_itself_is_allowed(server: ImageServer, size: int) -> None:
    """One byte more is too many."""
    fetcher = make_fetcher(max_bytes=size)
    for path in ("/image/limit", "/chunked/whole"):
        if size == len(IMAGE):
            assert fetcher.fetch(server.url + path) == IMAGE
        else:
            assert refusal(fetcher, server.url + path).code == "too_many_bytes"


@pytest.mark.parametrize("path", ["/short", "/chunked/cut"])
def test_a_body_that_breaks_off_is_not_an_image(server: ImageServer, path: str) -> None:
    """Half of a JPEG may well decode: it must not come through."""
    error = refusal(make_fetcher(attempts=2), server.url + path)
    assert (error.code, server.requests[path]) == ("unreachable", 2)


@pytest.mark.parametrize("where", ["header", "body", "chunk", "unsized"])
def test_a_server_that_trickles_meets_the_deadline(server: ImageServer, where: str) -> None:
    """Each byte comes well within a socket's timeout, wherever it is; the whole must not."""
    started_s = time.monotonic()
    error = refusal(make_fetcher(timeout_s=0.4), f"{server.url}/trickle/{where}")
    assert time.monotonic() - started_s < 3
    assert error.code == "unreachable"
    assert "the answer took too long (fetch.timeout_s)" in error.message


def test_the_deadline_is_shared_by_all_redirects(server: ImageServer) -> None:
    """By the clock, the second hop begins when the time is up already."""
    ticks = itertools.chain([0.0, 0.1], itertools.repeat(9.0))
    settings = FetchSettings(
        schemes=("http",), allow_private_networks=True, timeout_s=5.0, attempts=1
    )
    fetcher = Fetcher(
        settings, MAX_BYTES, lambda _s: False, lambda: next(ticks), None, trusting_nobody()
    )
    error = refusal(fetcher, f"{server.url}/to//image/late")
    assert "the answer took too long" in error.message
    assert server.requests["/image/late"] == 0


def test_a_redirect_is_followed(server: ImageServer) -> None:
    """A relative one and an absolute one."""
    assert make_fetcher().fetch(f"{server.url}/to//image/relative") == IMAGE
    assert make_fetcher().fetch(f"{server.url}/to/{server.url}/image/absolute") == IMAGE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(server: ImageServer, status: int) -> None:
    """They differ in what a browser remembers, not in where the image is."""
    assert make_fetcher().fetch(f"{server.url}/moved/{status}") == IMAGE


def test_redirects_come_to_an_end(server: ImageServer) -> None:
    """Three are enough for anyone."""
    error = refusal(make_fetcher(), f"{server.url}/loop")
    assert (error.code, server.requests["/loop"]) == ("too_many_redirects", 4)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "s3://bucket/key"])
def test_a_redirect_changes_to_no_other_kind_of_scheme(server: ImageServer, target: str) -> None:
    """Not even to one that events themselves may use."""
    fetcher = make_fetcher(schemes=("http", "file", "s3"), file_root="/")
    assert refusal(fetcher, f"{server.url}/to/{target}").code == "scheme_not_allowed"
