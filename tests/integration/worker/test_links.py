"""Links that lead nowhere, never end, or where no event may lead: dead letters, and no thread is held."""

import time
from http.server import BaseHTTPRequestHandler

from tests.support.events import picture, structured
from tests.support.image_server import ImageServer
from tests.support.lane import Lane
from tests.support.results import letter_of

MAX_BYTES = 300_000


def slowly(request: BaseHTTPRequestHandler) -> None:
    """Sends its headers for ever, a byte at a time: no single read ever times out."""
    try:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not request.wfile.closed:
            request.wfile.write(b"a")
            request.wfile.flush()
            time.sleep(0.1)
    except OSError:
        return


def trickle(request: BaseHTTPRequestHandler) -> None:
    """Sends a body for ever, a byte at a time."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    slowly(request)


def test_dead_links_are_tried_as_often_as_told(lane: Lane, images: ImageServer) -> None:
    """What may be temporary is tried again, what is gone is not; the attempts are in the header."""
    images.routes |= {"/down": 503, "/gone": 410, "/slow": slowly, "/trickle": trickle}
    images.routes["/large"] = bytes(MAX_BYTES + 1)
    kinds = {
        f"{images.url}/down": ("unreachable", "2"),
        f"{images.url}/gone": ("not_found", "1"),
        f"{images.url}/slow": ("unreachable", "2"),
        f"{images.url}/trickle": ("unreachable", "2"),
        f"{images.url}/large": ("too_many_bytes", "1"),
        "http://127.0.0.1:1/refused": ("unreachable", "2"),
        "http://no-such-host.invalid/x": ("unreachable", "2"),
    }
    lane.start(
        fetch__schemes="http",
        fetch__allow_private_networks="true",
        fetch__attempts=2,
        fetch__timeout_s=0.5,
        decode__max_bytes=MAX_BYTES,
    )
    events = [structured(f"link-{at}", uri=uri) for at, uri in enumerate(kinds)]
    places = lane.send(*events)
    with lane.dead_letters() as reader:
        for place, event, (code, attempts) in zip(places, events, kinds.values(), strict=True):
            letter = letter_of(reader, place)
            assert letter.value == event.value
            assert letter.header("synthgate.error.code") == code
            assert letter.header("synthgate.error.attempts") == attempts


def test_private_addresses_are_refused_unless_allowed(lane: Lane, images: ImageServer) -> None:
    """By default an event cannot make the worker call what only the worker can reach."""
    images.routes["/secret"] = picture(1)
    port = images.url.rpartition(":")[2]
    hosts = (
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 (an address to refuse: nothing listens there)
        "2130706433",
    )
    lane.start(fetch__schemes="http", fetch__attempts=1)
    lane.send(*(structured(f"p-{host}", uri=f"http://{host}:{port}/secret") for host in hosts))
    with lane.dead_letters() as reader:
        found = reader.wait_for_keys([f"p-{host}" for host in hosts])
    codes = {name: letter.header("synthgate.error.code") for name, letter in found.items()}
    assert codes == dict.fromkeys(codes, "private_address")
    assert images.hits["/secret"] == 0
