"""Every way an image event may be written gets its verdict, the same on the topic and in Redis."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.manifest import manifest_sha256, read_manifest
from engines.preprocess import Limits, prepare
from tests.support.bundles import reference_logit_N
from tests.support.events import Outgoing, binary, picture, s3_notification, structured, uploaded_at
from tests.support.image_server import ImageServer
from tests.support.lane import Lane
from tests.support.results import TopicReader
from tests.support.worker_process import WorkerProcess, eventually
from worker.verdict import Verdict

TTL_S = 1234
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

VerdictOf = Callable[[str, Outgoing], dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that file URIs may name."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def worker(shared_lane: Lane, images: ImageServer, files: Path) -> WorkerProcess:
    """A worker that may fetch from the test's own server, directory and bucket."""
    return shared_lane.start(
        fetch__schemes="http,s3,file",
        fetch__allow_private_networks="true",
        fetch__file_root=files,
        fetch__s3_endpoint=images.url,
        redis__verdict_ttl_s=TTL_S,
    )


@pytest.fixture(scope="module")
def verdict_of(shared_lane: Lane, worker: WorkerProcess) -> Iterator[VerdictOf]:
    """Sends an event and returns its verdict, after a look that Redis holds the very same."""
    with shared_lane.verdicts() as reader:

        def verdict_of(content_id: str, event: Outgoing) -> dict[str, Any]:
            shared_lane.send(event)
            document = read(reader, content_id)
            # Redis is written just after the topic has acknowledged.
            eventually(lambda: shared_lane.stored(content_id) == document, "Redis has it", 5)
            return document

        yield verdict_of


def read(reader: TopicReader, content_id: str) -> dict[str, Any]:
    """The verdict about this content, in the form that every verdict has."""
    got = reader.wait_for_keys([content_id])[content_id]
    assert got.header("content-type") == "application/cloudevents+json; charset=utf-8"
    Verdict.model_validate_json(got.value or b"")
    assert got.document["subject"] == content_id
    assert got.document["data"]["content_id"] == content_id
    return got.document


def expected_logit(bundle: Path, image: bytes) -> float:
    """What numpy says of the image's crop."""
    spec = read_manifest(bundle).preprocess
    return float(reference_logit_N(prepare(image, spec, Limits()).image_NHWC).mean())


def test_structured_event_with_bytes_has_the_verdict_of_the_contract(
    verdict_of: VerdictOf, bundle: Path
) -> None:
    """Media, score, model and times are those of the image, the bundle and the event."""
    image = picture(1)
    manifest = read_manifest(bundle)
    verdict = verdict_of("inline-1", structured("inline-1", image=image, minutes=3))
    data = verdict["data"]
    assert verdict["type"] == "io.synthgate.image.verdict.v1"
    assert data["event_id"] == "event-inline-1"
    assert data["event_time"] == uploaded_at(3).replace("+00:00", ".000000Z")
    assert data["media"] == {
        "sha256": hashlib.sha256(image).hexdigest(),
        "mime": "image/png",
        "width_px": 40,
        "height_px": 40,
        "bytes": len(image),
    }
    (score,) = data["scores"]
    assert score["class"] == "ai_generated"
    assert score["logit"] == pytest.approx(expected_logit(bundle, image), abs=1e-4)
    assert score["score"] == pytest.approx(manifest.score(score["logit"]))
    assert data["signals"] == {
        "classifier": score["score"],
        "hash_match": None,
        "provenance": None,
    }
    assert data["model"]["name"] == manifest.name
    assert data["model"]["version"] == manifest.version
    assert data["model"]["bundle_sha256"] == manifest_sha256(bundle)
    model = (bundle / manifest.model_file).read_bytes()
    assert data["model"]["engine_sha256"] == hashlib.sha256(model).hexdigest()
    assert data["model"]["preprocess_version"] == manifest.preprocess.version
    assert data["threshold_set_id"] == "default"
    assert data["operating_fpr"] == manifest.threshold_set(None).review.fpr
    assert data["calibration_id"] == manifest.calibration.id
    assert data["mode"] == "enforce"
    assert data["latency_ms"]["total"] >= data["latency_ms"]["infer"] > 0


def test_bands_follow_the_thresholds_and_a_score_alone_never_blocks(
    shared_lane: Lane, worker: WorkerProcess, bundle: Path
) -> None:
    """Over many colours every band that a lone classifier may give occurs, each on its side."""
    thresholds = read_manifest(bundle).threshold_set(None)
    names = [f"band-{seed}" for seed in range(100, 112)]
    shared_lane.send(*(binary(name, picture(100 + at)) for at, name in enumerate(names)))
    with shared_lane.verdicts() as reader:
        found = [each.document["data"] for each in reader.wait_for_keys(names).values()]
    for data in found:
        score = data["scores"][0]["score"]
        past_block = score >= thresholds.block.threshold
        assert (data["band"] == "allow") == (score < thresholds.review.threshold)
        assert ("block_not_corroborated" in data["reasons"]) == past_block
    assert {data["band"] for data in found} == {"allow", "review"}
    assert any("block_not_corroborated" in data["reasons"] for data in found)


@pytest.mark.parametrize(
    ("file_format", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_binary_event_is_the_image_itself(
    verdict_of: VerdictOf, file_format: str, mime: str
) -> None:
    """The record's value is the image, the rest is in its headers; the bytes say what they are."""
    image = picture(2, file_format=file_format)
    content_id = f"binary-{file_format}"
    data = verdict_of(content_id, binary(content_id, image))["data"]
    assert data["media"]["mime"] == mime
    assert data["media"]["sha256"] == hashlib.sha256(image).hexdigest()


def test_http_uri_is_fetched(verdict_of: VerdictOf, images: ImageServer, shared_lane: Lane) -> None:
    """The image behind the URI is scored, and neither URI nor its signature enters verdict or log."""
    images.routes["/cat.png?signature=SECRETSIGNATURE"] = picture(3)
    uri = f"{images.url}/cat.png?signature=SECRETSIGNATURE"
    verdict = verdict_of("http-1", structured("http-1", uri=uri))
    assert verdict["data"]["media"]["sha256"] == hashlib.sha256(picture(3)).hexdigest()
    assert verdict["data"]["latency_ms"]["fetch"] > 0
    assert "SECRETSIGNATURE" not in str(verdict)
    assert "SECRETSIGNATURE" not in shared_lane.workers[0].log_text()


def test_http_redirect_is_followed_and_a_busy_server_asked_again(
    verdict_of: VerdictOf, images: ImageServer
) -> None:
    """Two 503 answers and a redirect stand between the event and its image."""
    answers = iter([503, 503])

    def busy_then_moved(request: Any) -> None:  # noqa: ANN401 (the handler class is made at run time)
        status = next(answers, 302)
        request.send_response(status)
        request.send_header("Location", "/moved.png")
        request.send_header("Content-Length", "0")
        request.end_headers()

    images.routes["/busy.png"] = busy_then_moved
    images.routes["/moved.png"] = picture(4)
    verdict_of("http-2", structured("http-2", uri=f"{images.url}/busy.png"))
    assert images.hits["/busy.png"] == 3


def test_file_uri_below_the_root_is_read(verdict_of: VerdictOf, files: Path) -> None:
    """A name with spaces and accents is read, percent-encoded as URIs are."""
    path = files / "un été.png"
    path.write_bytes(picture(5))
    data = verdict_of("file-1", structured("file-1", uri=path.as_uri()))["data"]
    assert data["media"]["sha256"] == hashlib.sha256(picture(5)).hexdigest()


def test_bucket_notification_is_read_as_it_is(verdict_of: VerdictOf, images: ImageServer) -> None:
    """The content id is bucket and key; the object is read from the store, its name decoded."""
    images.routes["/uploads/2026/photo%20one.png"] = picture(6)
    event = s3_notification("uploads", "2026%2Fphoto+one.png")
    verdict = verdict_of("uploads/2026/photo one.png", event)
    assert verdict["data"]["media"]["sha256"] == hashlib.sha256(picture(6)).hexdigest()
    assert verdict["data"]["event_id"] == "uploads/2026/photo one.png@3"


def test_verdict_expires_and_tells_what_was_traced(
    verdict_of: VerdictOf, shared_lane: Lane
) -> None:
    """Redis drops the verdict after its time; the sender's trace goes on in the verdict."""
    traceparent = f"00-{TRACE_ID}-b7ad6b7169203331-01".encode()
    event = structured("trace-1", image=picture(7), headers=(("traceparent", traceparent),))
    assert verdict_of("trace-1", event)["data"]["trace_id"] == TRACE_ID
    with shared_lane.redis() as client:
        left_s = client.ttl(f"{shared_lane.name}:verdict:trace-1")
    assert TTL_S - 60 < int(str(left_s)) <= TTL_S


def test_content_id_of_any_language_and_shape(verdict_of: VerdictOf) -> None:
    """What senders use as ids arrives as it was: accents, emoji, colons, the longest allowed."""
    for content_id in ("größe:π/😀 {x}", "x" * 512):
        verdict_of(content_id, structured(content_id, image=picture(8)))


def test_event_without_times_is_dated_by_its_record(verdict_of: VerdictOf) -> None:
    """A binary event with nothing but what CloudEvents require has the record's timestamp."""
    event = Outgoing(
        b"untimed",
        picture(9),
        (
            ("ce_specversion", b"1.0"),
            ("ce_id", b"e"),
            ("ce_source", b"/s"),
            ("ce_type", b"io.synthgate.image.uploaded.v1"),
        ),
        timestamp_ms=1_700_000_000_123,
    )
    data = verdict_of("untimed", event)["data"]
    assert data["event_time"] == "2023-11-14T22:13:20.123000Z"


def test_one_log_line_an_event(shared_lane: Lane, verdict_of: VerdictOf) -> None:
    """The canonical line names the event, what became of it and where the time went; no bytes."""
    verdict_of("logged", structured("logged", image=picture(10)))
    worker = shared_lane.workers[0]
    eventually(lambda: bool(worker.log("image_event", content_id="logged")), "logged", 5)
    (line,) = worker.log("image_event", content_id="logged")
    assert line["outcome"] == "verdict"
    assert line["still_owned"] is True
    assert line["score_cached"] is False
    assert {"partition", "offset", "sha256", "band", "latency_ms", "trace_id"} <= set(line)
