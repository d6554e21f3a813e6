"""Releases in S3 or a store that speaks it, through obstore.

In: ``s3://bucket/prefix``; credentials, region and endpoint from the usual ``AWS_...`` variables.
Errors: ``StoreError``, ``AlreadyThereError``. The store must know conditional puts (If-None-Match:
AWS since August 2024, MinIO, Ceph): one that ignores them would let two promotions both win.
"""

import os
from datetime import timedelta
from typing import Final

from engines.release.store import AlreadyThereError, StoreError

ATTEMPT_TIMEOUT_S: Final = 30.0
RETRY_TIMEOUT_S: Final = 60.0


class S3Store:
    """Objects below a prefix of a bucket."""

    def __init__(self, url: str, *, timeout_s: float = RETRY_TIMEOUT_S) -> None:
        try:
            from obstore.store import S3Store as Client  # noqa: PLC0415 (optional: only for s3:)
        except ImportError as error:
            raise StoreError(f"{url} needs the s3 extra: pip install 'synthgate[s3]'") from error
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
