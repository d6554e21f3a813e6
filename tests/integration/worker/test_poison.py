"""Poison of every kind goes to the dead-letter topic, whole, and harms no other event of its batch."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from kafka.errors import KafkaError

from tests.support.events import Outgoing, binary, picture, s3_notification, structured
from tests.support.lane import Lane
from tests.support.results import Got, TopicReader, letter_of
from tests.support.services import BrokerKind
from tests.support.worker_process import WorkerProcess, eventually
from worker import __version__

MAX_BYTES = 300_000
# Of any kind that a record may carry: repeated, empty, not text, and with the names of another tool's context.
ODD_HEADERS: tuple[tuple[str, bytes | None], ...] = (
    ("tenant", b"a"),
    ("tenant", b"b"),
    ("empty", b""),
    ("raw", b"\xff\x00\xfe"),
)


def png_of_size(width_px: int, height_px: int) -> bytes:
    """A PNG that promises that many pixels and holds a few bytes."""
    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def event_with(**changes: object) -> Outgoing:
    """A structured event, sound but for these attributes."""
    sound = structured("odd", image=picture(0))
    document = json.loads(sound.value or b"") | changes
    return replace(sound, value=json.dumps(document).encode())


POISON: dict[str, tuple[Outgoing, str, str]] = {
    "tombstone": (Outgoing(b"tombstone", None), "event", "empty"),
    "not json": (Outgoing(b"k", b"\x00\x01 no json"), "event", "malformed_json"),
    "truncated json": (Outgoing(b"k", b'{"specversion": "1.0", '), "event", "malformed_json"),
    "deep json": (Outgoing(b"k", b"[" * 100_000), "event", "malformed_json"),
    "json array": (Outgoing(b"k", b"[1, 2]"), "event", "malformed_json"),
    "huge number": (Outgoing(b"k", b'{"a": ' + b"9" * 5000 + b"}"), "event", "malformed_json"),
    "other json": (Outgoing(b"k", b'{"hello": 1}'), "event", "unknown_format"),
    "wrong type": (event_with(type="com.example.other"), "event", "invalid_event"),
    "no id": (event_with(id=""), "event", "invalid_event"),
    "bad time": (event_with(time="yesterday"), "event", "invalid_event"),
    "time without zone": (event_with(time="2026-11-01T12:00:00"), "event", "invalid_event"),
    "lone surrogate": (event_with(id="\ud800"), "event", "invalid_event"),
    "no image": (structured("no-image"), "event", "no_image"),
    "two images": (structured("two", image=picture(0), uri="https://x/"), "event", "two_images"),
    "bad base64": (structured("b64", data_base64="%%%"), "event", "invalid_event"),
    "control character": (structured("a\nb", image=picture(0)), "event", "invalid_event"),
    "long content id": (structured("x" * 513, image=picture(0)), "event", "invalid_event"),
    "deleted object": (
        s3_notification("b", "k", name="s3:ObjectRemoved:Delete"),
        "event",
        "not_created",
    ),
    "digest of other bytes": (
        structured("sha", image=picture(0), sha256="0" * 64),
        "fetch",
        "sha256_mismatch",
    ),
    "scheme": (structured("ftp", uri="ftp://x/y.png"), "fetch", "scheme_not_allowed"),
    "malformed uri": (structured("uri", uri="http://[::1/x"), "fetch", "malformed_uri"),
    "empty host": (structured("host", uri="http:///x.png"), "fetch", "host_not_allowed"),
    "outside the root": (
        structured("etc", uri="file:///etc/hostname"),
        "fetch",
        "file_not_allowed",
    ),
    "climbing": (structured("up", uri="file:///tmp/../etc/hostname"), "fetch", "file_not_allowed"),
    "text": (
        binary("text", b"this is a text, and long enough to be read as one"),
        "decode",
        "unsupported_format",
    ),
    "svg": (
        binary("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "decode",
        "unsupported_format",
    ),
    "truncated png": (binary("cut", picture(0)[:120]), "decode", "truncated"),
    "bomb": (binary("bomb", png_of_size(30_000, 30_000)), "decode", "too_many_pixels"),
    "tiny": (binary("tiny", picture(0, side_px=4)), "decode", "too_small"),
    "long file": (binary("long", picture(0) + bytes(MAX_BYTES)), "decode", "too_many_bytes"),
}


@pytest.fixture(scope="module")
def worker(shared_lane: Lane, tmp_path_factory: pytest.TempPathFactory) -> WorkerProcess:
    """A worker that takes images of a few hundred kilobytes and fetches from anywhere near."""
    return shared_lane.start(
        fetch__schemes="http,file",
        fetch__allow_private_networks="true",
        fetch__file_root=tmp_path_factory.mktemp("root"),
        decode__max_bytes=MAX_BYTES,
        kafka__max_message_bytes=500_000,
        batch__max_age_ms=200,
    )


@pytest.fixture(scope="module")
def dead_letters(shared_lane: Lane, worker: WorkerProcess) -> Iterator[TopicReader]:
    """The dead-letter topic."""
    with shared_lane.dead_letters() as reader:
        yield reader


@pytest.fixture(scope="module")
def verdicts(shared_lane: Lane, worker: WorkerProcess) -> Iterator[TopicReader]:
    """The verdict topic."""
    with shared_lane.verdicts() as reader:
        yield reader


def assert_whole(letter: Got, event: Outgoing) -> None:
    """Key, value and headers are those of the record; the context comes after them."""
    assert letter.key == event.key
    assert letter.value == event.value
    assert letter.headers[: len(event.headers)] == event.headers


def test_poison_is_kept_whole_and_its_neighbours_get_their_verdicts(
    shared_lane: Lane, dead_letters: TopicReader, verdicts: TopicReader
) -> None:
    """Each kind, sent between sound events to one partition, comes back with its reason."""
    sound = [binary(f"sound-{at}", picture(at)).on(0) for at in range(len(POISON))]
    sick = [
        replace(each[0], headers=each[0].headers + ODD_HEADERS).on(0) for each in POISON.values()
    ]
    mixed = [event for pair in zip(sound, sick, strict=True) for event in pair]
    places = shared_lane.send(*mixed)[1::2]
    found = {
        name: letter_of(dead_letters, place) for name, place in zip(POISON, places, strict=True)
    }
    reasons = {
        name: (letter.header("__connect.errors.stage"), letter.header("synthgate.error.code"))
        for name, letter in found.items()
    }
    assert reasons == {name: (stage, code) for name, (_, stage, code) in POISON.items()}
    for letter, event in zip(found.values(), sick, strict=True):
        assert_whole(letter, event)
        assert letter.header("__connect.errors.topic") == shared_lane.input_topic
        assert letter.header("__connect.errors.exception.class.name") == "worker.errors.Poison"
        assert letter.header("__connect.errors.exception.message")
        assert letter.header("synthgate.worker.version") == __version__
        assert letter.header("synthgate.dead_letter.id")
        assert letter.header("synthgate.value_omitted") is None
    verdicts.wait_for_keys([f"sound-{at}" for at in range(len(POISON))])


def test_poison_too_large_for_the_topic_is_kept_without_its_value(
    shared_lane: Lane, dead_letters: TopicReader
) -> None:
    """The letter says so and names the place where the value still is; with a key or without one."""
    value = b"{" + b" " * 600_000
    for key in (b"large", None):
        event = Outgoing(key, value, ODD_HEADERS, partition=1)
        (place,) = shared_lane.send(event)
        letter = letter_of(dead_letters, place)
        assert letter.key == key
        assert not letter.value
        assert letter.headers[: len(ODD_HEADERS)] == ODD_HEADERS
        assert letter.header("synthgate.value_omitted") == "true"
        assert letter.header("synthgate.error.code") == "malformed_json"


def test_records_that_few_clients_can_write_do_no_harm(
    shared_lane: Lane, dead_letters: TopicReader, verdicts: TopicReader, worker: WorkerProcess
) -> None:
    """Neither key nor value, and headers that are null: dead letters as whole as can be, or verdicts."""
    null_header = replace(binary("null", b"no image"), headers=(("nothing", None), ("some", b"x")))
    sound_null = replace(
        binary("sound-null", picture(91)),
        headers=(*binary("sound-null", b"").headers, ("nothing", None)),
    )
    places = shared_lane.send(Outgoing(None, None), null_header, sound_null)
    nothing, null = (letter_of(dead_letters, place) for place in places[:2])
    assert nothing.key is None
    assert not nothing.value
    assert nothing.header("synthgate.error.code") == "empty"
    assert [name for name, _ in null.headers[:2]] == ["nothing", "some"]
    assert null.value == b"no image"
    verdicts.wait_for_keys(["sound-null"])
    assert not worker.ended


def test_a_timestamp_beyond_every_calendar_is_poison(
    broker_kind: BrokerKind, shared_lane: Lane, dead_letters: TopicReader
) -> None:
    """A record without a time of its own is dated by its timestamp, which may be no date at all.

    Apache Kafka refuses such a record from its sender, unless the topic is set up to take it.
    """
    sound = binary("late", picture(90))
    headers = tuple(pair for pair in sound.headers if pair[0] != "ce_time")
    beyond = replace(sound, timestamp_ms=2**61, headers=headers)
    if broker_kind is BrokerKind.KAFKA:
        with pytest.raises(KafkaError):
            shared_lane.send(beyond)
    else:
        (place,) = shared_lane.send(beyond)
        assert letter_of(dead_letters, place).header("synthgate.error.code") == "timestamp"


def test_events_cannot_grow_a_verdict_beyond_its_topic(
    shared_lane: Lane, dead_letters: TopicReader, worker: WorkerProcess
) -> None:
    """A notification with a version id of a megabyte is poison, not the end of every worker."""
    event = s3_notification("bucket", "key.png")
    document = json.loads(event.value or b"")
    document["Records"][0]["s3"]["object"]["versionId"] = "v" * 200_000
    (place,) = shared_lane.send(replace(event, value=json.dumps(document).encode()))
    assert letter_of(dead_letters, place).header("synthgate.error.code") == "invalid_event"


def test_nothing_of_it_was_logged_and_all_was_committed(
    shared_lane: Lane, worker: WorkerProcess
) -> None:
    """No payload in the log; every partition is committed to its end; the worker never restarted."""
    eventually(
        lambda: (
            worker.metric("synthgate_in_flight_events") == 0
            and worker.metric("synthgate_consumer_lag_records") == 0
        ),
        "nothing left to do",
    )
    assert worker.drain() == 0
    assert "this is a text" not in worker.log_text()
    assert worker.log("thread_failed") == []
    assert worker.log("unexpected_error") == []
    with TopicReader(shared_lane.bootstrap, shared_lane.input_topic) as reader:
        ends: dict[int, int] = {}
        for each in reader.to_end():
            ends[each.partition] = max(ends.get(each.partition, 0), each.offset + 1)
    committed = shared_lane.committed()
    assert {partition: committed[partition] for partition in ends} == ends


class NotUtf8(str):
    """A header's name that clients written in C can send, and kafka-python cannot read."""

    __slots__ = ()

    def encode(self, *_: str, **__: str) -> bytes:
        """Two bytes that are no UTF-8."""
        return b"\xff\xfe"


def test_a_record_that_the_client_cannot_read_is_stepped_over(lane: Lane) -> None:
    """A dead letter says where it is; what comes after it gets its verdict; all is committed."""
    worker = lane.start()
    lane.send(binary("before", picture(1)).on(0))
    odd = replace(binary("odd", picture(2)), headers=((NotUtf8("x"), b"v"),))
    (place,) = lane.send(odd.on(0))
    lane.send(binary("after", picture(3)).on(0))
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        verdicts.wait_for_keys(["before", "after"])
        letter = letter_of(dead_letters, place)
    assert letter.header("__connect.errors.stage") == "consume"
    assert letter.header("synthgate.error.code") == "unreadable"
    assert letter.header("synthgate.value_omitted") == "true"
    assert (letter.key, letter.value) == (None, b"")
    assert worker.drain() == 0
    assert lane.committed()[0] == place[1] + 2
