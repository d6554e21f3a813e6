"""Objects in S3-compatible stores, read by bucket and key through obstore.

Raises :class:`Poison` for an object that does not exist or may not be read, and :class:`Retryable` where the store
does not answer.
"""

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from worker.errors import Fatal, Poison, Retryable
from worker.fetch import ObjectReader
from worker.settings import FetchSettings

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

BUCKETS_MAX = 64
MISSING_PACKAGE = "fetch.schemes has s3, which needs the package obstore: pip install obstore"


def open_s3(settings: FetchSettings) -> ObjectReader:
    """A reader of ``s3:`` URIs.

    Raises:
        Fatal: obstore is not installed.
    """
    try:
        import obstore  # noqa: F401, PLC0415 (optional: only where s3 is allowed)
    except ImportError as error:
        raise Fatal(MISSING_PACKAGE) from error
    return _S3Reader(settings)


class _S3Reader:
    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        # One client per bucket: each has its own connections.
        self._store = lru_cache(maxsize=BUCKETS_MAX)(self._open)

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The object's bytes; of a larger object, a few more than ``max_bytes``."""
        import obstore  # noqa: PLC0415 (see above)
        from obstore import exceptions as errors  # noqa: PLC0415

        # obstore would strip the slashes and read another object.
        if key.startswith("/") or key.endswith("/"):
            raise _unsupported(key)
        try:
            body = bytearray()
            for chunk in obstore.get(self._store(bucket), key).stream():
                body += chunk
                if len(body) > max_bytes:
                    break
            return bytes(body)
        except (FileNotFoundError, errors.NotFoundError) as error:
            raise Poison("fetch", "not_found", f"s3://{bucket}/{key} does not exist") from error
        except (
            PermissionError,
            errors.PermissionDeniedError,
            errors.UnauthenticatedError,
        ) as error:
            raise Poison(
                "fetch", "forbidden", f"the worker may not read s3://{bucket}/{key}"
            ) from error
        except (ValueError, errors.InvalidPathError) as error:
            raise _unsupported(key) from error
        except (OSError, errors.BaseError) as error:
            raise Retryable(f"the object store did not answer: {type(error).__name__}") from error

    def _open(self, bucket: str) -> "S3Store":
        from obstore.store import S3Store  # noqa: PLC0415 (see above)

        settings = self._settings
        secret = settings.s3_secret_access_key
        # obstore does not accept None, so unset options are left out.
        config: S3Config = {
            "region": settings.s3_region,
            "skip_signature": settings.s3_access_key_id is None,
            "virtual_hosted_style_request": False,
        }
        if settings.s3_endpoint is not None:
            config["endpoint"] = settings.s3_endpoint
        if settings.s3_access_key_id is not None:
            config["access_key_id"] = settings.s3_access_key_id
        if secret is not None:
            config["secret_access_key"] = secret.get_secret_value()
        timeout = timedelta(seconds=settings.timeout_s)
        return S3Store(
            bucket,
            config=config,
            client_options={
                "allow_http": (settings.s3_endpoint or "").startswith("http://"),
                "timeout": timeout,
            },
            retry_config={"max_retries": 0, "retry_timeout": timeout},
        )


def _unsupported(key: str) -> Poison:
    return Poison(
        "fetch",
        "unsupported_key",
        f"the key {key!r} has an empty or relative part or a control character, which the S3 client "
        "cannot request: rename the object",
    )
