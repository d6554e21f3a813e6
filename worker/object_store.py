"""Objects of S3-compatible stores, by bucket and key, through obstore.

Errors: :class:`Poison` for what is not there or may not be read, :class:`Retryable` for a store that is away.
"""

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from worker.errors import Fatal, Poison, Retryable
from worker.fetch import ObjectStore
from worker.settings import FetchSettings

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

BUCKETS_MAX = 64
MISSING_EXTRA = "fetch.schemes has s3, which needs the s3 extra: pip install 'synthgate[s3]'"


def open_object_store(settings: FetchSettings) -> ObjectStore:
    """A reader of ``s3:`` URIs.

    Raises:
        Fatal: The s3 extra is not installed.
    """
    try:
        import obstore  # noqa: F401, PLC0415 (optional: only where s3 is allowed)
    except ImportError as error:
        raise Fatal(MISSING_EXTRA) from error
    return _S3(settings)


class _S3:
    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        # One client a bucket: each has connections of its own.
        self._store = lru_cache(maxsize=BUCKETS_MAX)(self._open)

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The object's bytes, or their beginning where they are more than ``max_bytes``."""
        import obstore  # noqa: PLC0415 (see above)
        from obstore import exceptions as errors  # noqa: PLC0415

        # obstore would strip the slashes, and read another object.
        if key.startswith("/") or key.endswith("/"):
            raise _unsupported(key)
        try:
            found = obstore.get(self._store(bucket), key)
            body = bytearray()
            for chunk in found.stream():
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
        # obstore takes no None: what is not set is left out.
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
        return S3Store(
            bucket,
            config=config,
            client_options={
                "allow_http": (settings.s3_endpoint or "").startswith("http://"),
                "timeout": timedelta(seconds=settings.timeout_s),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=settings.timeout_s)},
        )


def _unsupported(key: str) -> Poison:
    return Poison(
        "fetch",
        "unsupported_key",
        f"the key {key!r} has an empty or relative part or a control character, which the worker "
        "cannot ask for: rename the object",
    )
