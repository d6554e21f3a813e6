"""Images by file: below one directory, plain files only; and what an object store is asked for."""

import os
import time
from pathlib import Path

import pytest

from tests.unit.worker.test_fetch_http import refusal, trusting_nobody
from worker.errors import Poison, Retryable
from worker.fetch import Fetcher
from worker.settings import FetchSettings

MAX_BYTES = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that events may read from, with an image, beside one that they may not."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "image ü.jpg").write_bytes(b"image")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "inside"


def make_fetcher(root: Path) -> Fetcher:
    """A fetcher that reads files below ``root``."""
    settings = FetchSettings(schemes=("file",), file_root=root, attempts=1)
    return Fetcher(settings, MAX_BYTES, lambda _s: False, time.monotonic, None, trusting_nobody())


def test_a_file_below_the_root_is_read(root: Path) -> None:
    """With or without localhost, escaped or not."""
    for uri in (
        f"file://{root}/image%20%C3%BC.jpg",
        f"file://localhost{root}/image ü.jpg",
        f"file://{root}/./sub/../image ü.jpg",
    ):
        assert make_fetcher(root).fetch(uri) == b"image"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/../outside/secret", "file_not_allowed"),
        ("/%2e%2e/outside/secret", "file_not_allowed"),
        ("-other/file", "file_not_allowed"),
        ("/missing.jpg", "not_found"),
        ("/image ü.jpg/more", "not_found"),
        ("/", "not_found"),
        ("/a%00b", "malformed_uri"),
        ("/" + "x" * 300, "unreachable"),
    ],
)
def test_paths_that_cannot_be_read(root: Path, path: str, code: str) -> None:
    """Outside is refused before anything is looked at; each other reason has its code."""
    assert refusal(make_fetcher(root), f"file://{root}{path}").code == code


def test_another_hosts_file_is_refused(root: Path) -> None:
    """The path would be another machine's."""
    assert refusal(make_fetcher(root), f"file://server{root}/image").code == "file_not_allowed"


def test_a_link_that_leads_outside_is_refused(root: Path) -> None:
    """To a file and through a directory; a link within the root is fine."""
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    (root / "directory").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to(root / "loop")
    (root / "within").symlink_to(root / "image ü.jpg")
    for path in ("file", "directory/secret"):
        assert refusal(make_fetcher(root), f"file://{root}/{path}").code == "file_not_allowed"
    assert refusal(make_fetcher(root), f"file://{root}/loop").code == "malformed_uri"
    assert make_fetcher(root).fetch(f"file://{root}/within") == b"image"


def test_a_root_that_is_a_link_itself_works(root: Path) -> None:
    """A mount point often is one."""
    link = root.parent / "link"
    link.symlink_to(root)
    assert make_fetcher(link).fetch(f"file://{link}/image ü.jpg") == b"image"


def test_a_pipe_does_not_keep_the_worker_waiting(root: Path) -> None:
    """Opening one would wait for a writer for ever."""
    os.mkfifo(root / "pipe")
    error = refusal(make_fetcher(root), f"file://{root}/pipe")
    assert (error.code, error.message) == ("not_found", "the uri does not name a regular file")


def test_a_file_may_have_the_largest_size_and_no_more(root: Path) -> None:
    """The cap is that of every image."""
    (root / "large").write_bytes(b"x" * MAX_BYTES)
    assert len(make_fetcher(root).fetch(f"file://{root}/large")) == MAX_BYTES
    (root / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    assert refusal(make_fetcher(root), f"file://{root}/large").code == "too_many_bytes"


class Store:
    """An object store in memory: what the fetcher asks of one."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._failures = failures

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The size that the key asks for; away for the first few calls."""
        self.asked.append((bucket, key, max_bytes))
        if len(self.asked) <= self._failures:
            raise Retryable("the object store did not answer: away")
        if key == "gone":
            raise Poison("fetch", "not_found", f"s3://{bucket}/{key} does not exist")
        return b"x" * int(key.rpartition("/")[2])


def make_s3_fetcher(store: Store | None) -> Fetcher:
    """A fetcher that reads from this store."""
    settings = FetchSettings(schemes=("s3",), attempts=2)
    return Fetcher(settings, MAX_BYTES, lambda _s: False, time.monotonic, store, trusting_nobody())


def test_an_s3_uri_names_bucket_and_key() -> None:
    """The key is unquoted, whole; the cap goes along."""
    store = Store()
    assert make_s3_fetcher(store).fetch("s3://bucket/a%20b/%C3%BC+c/7") == b"x" * 7
    assert store.asked == [("bucket", "a b/ü+c/7", MAX_BYTES)]
    assert refusal(make_s3_fetcher(store), "s3://bucket/1001").code == "too_many_bytes"


def test_a_store_that_is_away_is_asked_again() -> None:
    """As any server; what is not there is not."""
    assert make_s3_fetcher(Store(failures=1)).fetch("s3://bucket/1") == b"x"
    assert refusal(make_s3_fetcher(Store(failures=2)), "s3://bucket/1").attempts == 2
    store = Store()
    assert refusal(make_s3_fetcher(store), "s3://bucket/gone").code == "not_found"
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "uri", ["s3:///key", "s3://bucket", "s3://bucket/", "s3:key", "s3://../key", "s3://b:80/key"]
)
def test_an_s3_uri_without_bucket_or_key(uri: str) -> None:
    """The message shows the form."""
    error = refusal(make_s3_fetcher(Store()), uri)
    assert (error.code, error.message) == ("malformed_uri", "an s3: URI is s3://bucket/key")


def test_s3_without_its_package_says_what_to_install() -> None:
    """Only a dry run gets there: a worker does not start like that."""
    assert "pip install obstore" in refusal(make_s3_fetcher(None), "s3://bucket/key").message
