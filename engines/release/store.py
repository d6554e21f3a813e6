"""Where releases are kept: objects that are written once, in a directory.

In: keys (``a/b/c``) and bytes. Out: bytes. Errors: ``StoreError``, ``AlreadyThereError``.

One operation carries every promise of a release: ``create``, which writes an object whole, or not at
all, and never over another. A directory does it by a hard link, S3 by a conditional put.
"""

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from engines.bundle.manifest import BundleError


class ReleaseError(BundleError):
    """A release cannot be made, undone or fetched; the message says what to do."""


class StoreError(ReleaseError):
    """The store did not answer, or refused."""


class AlreadyThereError(ReleaseError):
    """An object of that key exists: another was quicker, or the version is taken."""


class Store(Protocol):
    """Objects, each written once."""

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None if there is none."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Write an object; ``AlreadyThereError`` if there is one."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix/``, in order."""
        ...


def create_or_same(store: Store, key: str, data: bytes) -> bool:
    """Write an object; returns False where another holds the key.

    True too where the same bytes lie there already: from an earlier attempt, or from this one, whose
    answer was lost and which the client sent again.
    """
    try:
        store.create(key, data)
    except AlreadyThereError:
        return store.read(key) == data
    return True


class DirectoryStore:
    """Objects as files below a directory, which may be shared (NFS included) by several machines."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes | None:
        """See ``Store.read``."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise StoreError(
                    f"the store {self._root} is not there: mount or correct it"
                ) from None
            return None
        except OSError as error:
            raise self._failed("read", key, error) from error

    def create(self, key: str, data: bytes) -> None:
        """See ``Store.create``; it is on the disk when this returns."""
        path = self._root / key
        temporary = self._root / ".incoming" / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A rename would write over what is there; a link does not.
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
            found = [path for path in below.rglob("*") if path.is_file()]
        except OSError as error:
            raise self._failed("list", prefix, error) from error
        if not self._root.is_dir():
            raise StoreError(f"the store {self._root} is not there: mount or correct it")
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def _failed(self, what: str, key: str, error: OSError) -> StoreError:
        return StoreError(
            f"cannot {what} {self._root / key} ({error.strerror or error}): nothing was changed "
            "but, at most, objects that no channel names; repair the store and repeat"
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
        # obstore reads these variables by itself, but client_options hide its AWS_ALLOW_HTTP.
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
            found = [one["path"] for page in obstore.list(self._client, prefix) for one in page]
        except (OSError, ValueError, errors.BaseError) as error:
            raise self._failed("list", prefix, error) from error
        return sorted(found)

    def _failed(self, what: str, key: str, error: Exception) -> StoreError:
        first = (str(error) or repr(error)).splitlines()[0][:300]
        return StoreError(
            f"cannot {what} {self._url}/{key} ({type(error).__name__}: {first}): each channel is at "
            "its old version or its new one; repair the store, look with `release list`, and repeat"
        )


def open_store(url: str) -> Store:
    """The store of that address."""
    return S3Store(url) if url.startswith("s3://") else DirectoryStore(Path(url))
