"""Where releases are kept: objects that are written once, in a directory or in S3.

In: keys (``a/b/c``) and bytes. Out: bytes. Errors: ``StoreError``, ``AlreadyThereError``.

Every guarantee of a release rests on ``create``, which writes an object completely or not at all, and
never replaces one. A directory does it with a hard link, S3 with a conditional put (If-None-Match:
AWS since August 2024, MinIO, Ceph). A store that ignored the condition would let two promotions win.

For S3, credentials, region and endpoint come from the usual ``AWS_...`` variables.
"""

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from engines.bundle.manifest import BundleError


class ReleaseError(BundleError):
    """A channel cannot be moved or fetched; the message says what to do."""


class StoreError(ReleaseError):
    """The store did not answer, or refused."""


class AlreadyThereError(ReleaseError):
    """An object of that key exists: another process was faster, or the version is taken."""


class Store(Protocol):
    """Objects, each written once."""

    def read(self, key: str) -> bytes | None:
        """The object's bytes; None if it does not exist."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Write an object; ``AlreadyThereError`` if it exists."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix/``, in order."""
        ...


def create_or_same(store: Store, key: str, data: bytes) -> bool:
    """Write an object; returns False if the key holds other bytes.

    The same bytes may be there already, from an earlier attempt or from this one, if its answer was
    lost and the client sent it again.
    """
    try:
        store.create(key, data)
    except AlreadyThereError:
        return store.read(key) == data
    return True


class DirectoryStore:
    """Objects as files below a directory, which machines may share (NFS included)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes | None:
        """See ``Store.read``."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise StoreError(
                    f"the store {self._root} is not there: mount it or correct the path"
                ) from None
            return None
        except OSError as error:
            raise self._failed("read", key, error) from error

    def create(self, key: str, data: bytes) -> None:
        """See ``Store.create``; the object is on the disk when this returns."""
        path = self._root / key
        temporary = self._root / ".incoming" / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A rename would replace an existing object; a link does not.
            path.hardlink_to(temporary)
            _sync(path.parent)
        except FileExistsError as error:
            raise AlreadyThereError(f"{path} exists already") from error
        except OSError as error:
            raise self._failed("write", key, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """See ``Store.keys``."""
        below = self._root / prefix
        try:
            files = [path for path in below.rglob("*") if path.is_file()]
        except OSError as error:
            raise self._failed("list", prefix, error) from error
        if not self._root.is_dir():
            raise StoreError(f"the store {self._root} is not there: mount it or correct the path")
        return sorted(path.relative_to(self._root).as_posix() for path in files)

    def _failed(self, what: str, key: str, error: OSError) -> StoreError:
        return StoreError(
            f"cannot {what} {self._root / key} ({error.strerror or error}): no channel was changed; "
            "repair the store and repeat"
        )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


ATTEMPT_TIMEOUT_S: Final = 30.0
RETRY_TIMEOUT_S: Final = 60.0


class S3Store:
    """Objects below a prefix of a bucket."""

    def __init__(self, url: str, *, timeout_s: float = RETRY_TIMEOUT_S) -> None:
        try:
            from obstore.store import S3Store as Client  # noqa: PLC0415 (optional: only for s3:)
        except ImportError as error:
            raise StoreError(f"{url} needs the package obstore: pip install obstore") from error
        self._url = url.rstrip("/")
        bucket, _, prefix = self._url.removeprefix("s3://").partition("/")
        # obstore reads these variables itself, but client_options hide its AWS_ALLOW_HTTP.
        endpoint = os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._client = Client(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "timeout": timedelta(seconds=min(timeout_s, ATTEMPT_TIMEOUT_S)),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=timeout_s)},
        )

    def read(self, key: str) -> bytes | None:
        """See ``Store.read``."""
        import obstore  # noqa: PLC0415 (see above)
        from obstore import exceptions as errors  # noqa: PLC0415

        try:
            return bytes(obstore.get(self._client, key).bytes())
        except (FileNotFoundError, errors.NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise self._failed("read", key, error) from error
            return None
        except (OSError, ValueError, errors.BaseError) as error:
            raise self._failed("read", key, error) from error

    def create(self, key: str, data: bytes) -> None:
        """See ``Store.create``."""
        import obstore  # noqa: PLC0415 (see above)
        from obstore import exceptions as errors  # noqa: PLC0415

        try:
            obstore.put(self._client, key, data, mode="create")
        except (errors.AlreadyExistsError, errors.PreconditionError) as error:
            raise AlreadyThereError(f"{self._url}/{key} exists already") from error
        except (OSError, ValueError, errors.BaseError) as error:
            raise self._failed("write", key, error) from error

    def keys(self, prefix: str) -> list[str]:
        """See ``Store.keys``."""
        import obstore  # noqa: PLC0415 (see above)
        from obstore import exceptions as errors  # noqa: PLC0415

        try:
            pages = obstore.list(self._client, prefix)
            keys = [entry["path"] for page in pages for entry in page]
        except (OSError, ValueError, errors.BaseError) as error:
            raise self._failed("list", prefix, error) from error
        return sorted(keys)

    def _failed(self, what: str, key: str, error: Exception) -> StoreError:
        first = (str(error) or repr(error)).splitlines()[0][:300]
        return StoreError(
            f"cannot {what} {self._url}/{key} ({type(error).__name__}: {first}): each channel is at "
            "its old version or its new one; repair the store, check with `release list`, and repeat"
        )


def open_store(url: str) -> Store:
    """The store of a directory or of ``s3://BUCKET/PREFIX``; its first use shows whether it answers."""
    return S3Store(url) if url.startswith("s3://") else DirectoryStore(Path(url))
