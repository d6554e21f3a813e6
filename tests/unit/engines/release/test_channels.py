"""Promotion, rollback and fetch hold on a directory and on S3 alike."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3  # type: ignore[import-untyped]  # it ships no types
import pytest
from moto.server import ThreadedMotoServer

from engines.bundle.manifest import SIGNATURES_FILE, BundleError, manifest_sha256
from engines.bundle.signatures import SignatureError
from engines.bundle.verify import load_bundle
from engines.release.channels import PromotionRequest, fetch, promote, rollback
from engines.release.gate import Margins
from engines.release.records import Change, current, history, parse_channel
from engines.release.store import DirectoryStore, ReleaseError, S3Store, Store, StoreError
from tests.support.signing import Signer, make_signer
from tests.unit.engines.release.candidates import make_candidate

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module", name="endpoint")
def _endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture(name="s3_environment")
def _s3_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "releaser",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(name="store", params=["directory", "s3"])
def _store(request: pytest.FixtureRequest, tmp_path: Path, endpoint: str) -> Store:
    if request.param == "directory":
        (tmp_path / "store").mkdir()
        return DirectoryStore(tmp_path / "store")
    request.getfixturevalue("s3_environment")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    bucket = f"releases-{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=bucket)
    return S3Store(f"s3://{bucket}/detector", timeout_s=5.0)


@pytest.fixture(name="signer")
def _signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path)


Promote = Callable[..., Change]


@pytest.fixture(name="up")
def _up(store: Store, signer: Signer, tmp_path: Path) -> Promote:
    """Promote a new candidate of that version and AUC to stable."""

    def up(version: str, auc: float = 0.9, **asked: object) -> Change:
        bundle = make_candidate(tmp_path / f"made-{version}", signer, version, auc=auc)
        who = PromotionRequest("tests", NOW, **asked)  # type: ignore[arg-type]
        return promote(store, "stable", bundle, who, signer.trust, Margins())

    return up


def back(store: Store, signer: Signer, to: str | None = None) -> str:
    """Roll stable back; returns the version that it is at then."""
    return rollback(
        store, "stable", PromotionRequest("tests", NOW, "worse"), signer.trust, to
    ).after.version


def test_what_was_promoted_is_fetched_byte_for_byte(
    store: Store, signer: Signer, up: Promote, tmp_path: Path
) -> None:
    """With its signature; and each change is in the history."""
    first, second = up("0.1.0"), up("0.2.0", 0.95)
    fetched = fetch(store, "stable", tmp_path / "fetched", signer.trust)
    assert fetched == second == current(store, "stable")
    made = {p.name: p.read_bytes() for p in (tmp_path / "made-0.2.0").iterdir()}
    found = {p.name: p.read_bytes() for p in (tmp_path / "fetched").iterdir()}
    assert {**found, SIGNATURES_FILE: b""} == {**made, SIGNATURES_FILE: b""}
    assert load_bundle(tmp_path / "fetched", trust=signer.trust).signed_by == signer.key_id
    assert history(store, "stable") == [first, second]
    assert (second.before, second.who, second.at) == (first.after, "tests", NOW)
    assert second.after.manifest_sha256 == manifest_sha256(tmp_path / "fetched")
    assert history(store, "canary") == []


def test_fetching_again_changes_nothing_and_never_writes_over(
    store: Store, signer: Signer, up: Promote, tmp_path: Path
) -> None:
    up("0.1.0")
    fetch(store, "stable", tmp_path / "fetched", signer.trust)
    fetch(store, "stable", tmp_path / "fetched", signer.trust)
    up("0.2.0")
    with pytest.raises(ReleaseError, match=r"exists and is not tiny 0\.2\.0"):
        fetch(store, "stable", tmp_path / "fetched", signer.trust)
    assert load_bundle(tmp_path / "fetched").manifest.version == "0.1.0"


def test_a_worse_candidate_needs_force_and_a_reason(store: Store, up: Promote) -> None:
    """And the findings stand in the history beside the reason."""
    up("0.1.0")
    with pytest.raises(ReleaseError, match=r"AUC 0\.8000, the version in place 0\.9000"):
        up("0.2.0", 0.8)
    with pytest.raises(ReleaseError, match="force needs a reason"):
        up("0.2.1", 0.8, force=True, reason=" ")
    assert len(history(store, "stable")) == 1
    change = up("0.2.2", 0.8, force=True, reason="the evaluation set was wrong")
    assert (change.forced, change.reason) == (True, "the evaluation set was wrong")
    assert "lower by more than 0.01" in change.findings[0]


def test_force_is_not_noted_where_nothing_had_to_be_forced(up: Promote) -> None:
    assert not up("0.1.0", force=True, reason="to be sure").forced


def test_rollback_leads_further_back_each_time(store: Store, signer: Signer, up: Promote) -> None:
    """1, 2, 3, back to 2, back to 1, and no further."""
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        up(version)
    assert [back(store, signer), back(store, signer)] == ["0.2.0", "0.1.0"]
    with pytest.raises(ReleaseError, match=r"no version was in stable before tiny 0\.1\.0"):
        back(store, signer)
    assert back(store, signer, "0.3.0") == "0.3.0"
    with pytest.raises(ReleaseError, match=r"'9\.9\.9' names no version that was ever"):
        back(store, signer, "9.9.9")
    actions = [change.action for change in history(store, "stable")]
    assert actions == ["promote"] * 3 + ["rollback"] * 3


def test_a_version_never_changes(store: Store, signer: Signer, up: Promote, tmp_path: Path) -> None:
    """The same version with other bytes is refused; the same bytes are not put there twice."""
    up("0.1.0")
    other = make_candidate(tmp_path / "other", signer, "0.1.0", auc=0.99)
    asked = PromotionRequest("tests", NOW)
    with pytest.raises(ReleaseError, match="A version never changes"):
        promote(store, "canary", other, asked, signer.trust, Margins())
    before = store.keys("versions") + store.keys("blobs")
    same = tmp_path / "made-0.1.0"
    promote(store, "canary", same, asked, signer.trust, Margins())
    assert store.keys("versions") + store.keys("blobs") == before
    with pytest.raises(ReleaseError, match=r"stable is at tiny 0\.1\.0 already"):
        promote(store, "stable", same, asked, signer.trust, Margins())


def test_of_two_promotions_at_once_one_wins(
    store: Store, signer: Signer, up: Promote, tmp_path: Path
) -> None:
    """The slower one has read the channel before the quicker one changed it, and is told so."""
    up("0.1.0")
    slow = make_candidate(tmp_path / "slow", signer, "0.3.0")

    class Overtaken:
        """A store in which another promotion comes in between, right before the record."""

        read, keys = staticmethod(store.read), staticmethod(store.keys)

        def create(self, key: str, data: bytes) -> None:
            if key.startswith("channels/"):
                up("0.2.0")
            store.create(key, data)

    with pytest.raises(ReleaseError, match=r"changed meanwhile: tests took it to tiny 0\.2\.0"):
        promote(Overtaken(), "stable", slow, PromotionRequest("late", NOW), signer.trust, Margins())
    assert [one.after.version for one in history(store, "stable")] == ["0.1.0", "0.2.0"]


def test_an_answer_that_was_lost_is_no_conflict_with_oneself(
    store: Store, signer: Signer, tmp_path: Path
) -> None:
    """A client that sends its own write again finds it there: that is success."""

    class Stuttering:
        """A store whose every write is sent twice."""

        read, keys = staticmethod(store.read), staticmethod(store.keys)

        def create(self, key: str, data: bytes) -> None:
            store.create(key, data)
            store.create(key, data)

    bundle = make_candidate(tmp_path / "made", signer)
    promote(Stuttering(), "stable", bundle, PromotionRequest("tests", NOW), signer.trust, Margins())
    assert len(history(store, "stable")) == 1


def test_a_store_that_goes_away_leaves_the_old_version(
    store: Store, signer: Signer, up: Promote, tmp_path: Path
) -> None:
    """Whichever write is the last that works; and the same promotion then succeeds."""
    up("0.1.0")
    bundle = make_candidate(tmp_path / "next", signer, "0.2.0")

    class Leaving:
        """A store that takes so many writes and no more."""

        def __init__(self, writes: int) -> None:
            self.left = writes

        read, keys = staticmethod(store.read), staticmethod(store.keys)

        def create(self, key: str, data: bytes) -> None:
            if self.left == 0:
                raise StoreError("the store went away")
            self.left -= 1
            store.create(key, data)

    asked = PromotionRequest("tests", NOW)
    # Three files, the manifest, the signature, the record: what is there already is tried again.
    for writes in range(6):
        with pytest.raises(StoreError, match="went away"):
            promote(Leaving(writes), "stable", bundle, asked, signer.trust, Margins())
        fetch(store, "stable", tmp_path / f"after-{writes}", signer.trust)
        assert load_bundle(tmp_path / f"after-{writes}").manifest.version == "0.1.0"
    assert promote(store, "stable", bundle, asked, signer.trust, Margins()).serial == 2


def test_force_passes_no_unsigned_and_no_other_keys_bundle(
    store: Store, signer: Signer, tmp_path: Path
) -> None:
    asked = PromotionRequest("tests", NOW, "hurry", force=True)
    unsigned = make_candidate(tmp_path / "unsigned", None, "0.1.0")
    other = make_candidate(tmp_path / "other", make_signer(tmp_path, "other"), "0.2.0")
    for bundle, told in ((unsigned, "is not signed"), (other, "not trusted")):
        with pytest.raises(SignatureError, match=told):
            promote(store, "stable", bundle, asked, signer.trust, Margins())
    assert current(store, "stable") is None
    # The same version, signed afterwards: the signature is added to what lies there.
    signer.sign(unsigned)
    assert promote(store, "stable", unsigned, asked, signer.trust, Margins()).serial == 1


def test_a_candidate_that_misses_its_golden_outputs_is_not_promoted(
    store: Store, signer: Signer, tmp_path: Path
) -> None:
    """Signed and whole, but it does not compute what its trainer did: force does not help."""
    bundle = make_candidate(tmp_path / "made", None)
    manifest = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(manifest.replace("0.0001", "1e-12"))
    signer.sign(bundle)
    asked = PromotionRequest("tests", NOW, "hurry", force=True)
    with pytest.raises(BundleError, match="differs by"):
        promote(store, "stable", bundle, asked, signer.trust, Margins())
    assert current(store, "stable") is None


def test_an_empty_channel_and_an_unknown_one_are_told(
    store: Store, signer: Signer, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseError, match="canary is empty"):
        fetch(store, "canary", tmp_path / "none", signer.trust)
    with pytest.raises(ReleaseError, match="canary is empty"):
        rollback(store, "canary", PromotionRequest("tests", NOW), signer.trust)
    with pytest.raises(ReleaseError, match=r"'beta'.*choose one of stable, canary, shadow"):
        parse_channel("beta")
    assert not (tmp_path / "none").exists()


def test_a_file_cut_short_in_the_store_is_never_fetched(tmp_path: Path, signer: Signer) -> None:
    """Nor left in half: the directory appears whole and verified, or not at all."""
    root = tmp_path / "store"
    root.mkdir()
    store = DirectoryStore(root)
    bundle = make_candidate(tmp_path / "made", signer)
    promote(store, "stable", bundle, PromotionRequest("tests", NOW), signer.trust, Margins())
    blob = max((root / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match="altered or cut short"):
        fetch(store, "stable", tmp_path / "fetched", signer.trust)
    assert not [path for path in tmp_path.iterdir() if "fetched" in path.name]


@pytest.mark.usefixtures("s3_environment")
def test_a_bucket_that_is_not_there_or_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StoreError, match="cannot list s3://no-such-bucket"):
        history(S3Store("s3://no-such-bucket", timeout_s=2.0), "stable")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="each channel is at its old version or its new one"):
        S3Store("s3://releases", timeout_s=1.0).create("channels/x", b"")
    with pytest.raises(StoreError, match="is not there"):
        history(DirectoryStore(Path("/nowhere/at/all")), "stable")
