"""Which images are read: where their bytes may come from, and the caps on what is decoded."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from worker.settings_connections import Group, PositiveFloat, PositiveInt


def split_words(value: object) -> object:
    """Accept ``a,b`` where a list is meant, as people write it in an environment variable."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]


class FetchSettings(Group):
    """Where image bytes named by ``uri`` may come from."""

    schemes: Words = Field(("https",), description="allowed: https, http, s3, file")
    allow_hosts: Words = Field((), description="only these hosts (empty: any public host)")
    allow_private_networks: bool = Field(
        default=False, description="let events name loopback, link-local and private addresses"
    )
    file_root: Path | None = Field(None, description="file: URIs must lie below this directory")
    s3_endpoint: str | None = Field(None, description="S3-compatible endpoint (default: AWS)")
    s3_region: str = Field("us-east-1", description="region of the buckets")
    s3_access_key_id: str | None = Field(None, description="access key (default: anonymous)")
    s3_secret_access_key: SecretStr | None = Field(None, description="secret key (secret)")
    timeout_s: PositiveFloat = Field(10.0, description="one attempt, from connect to last byte")
    attempts: PositiveInt = Field(3, description="attempts before a fetch is a dead letter")
    backoff_s: PositiveFloat = Field(0.5, description="pause before the second attempt; doubles")
    threads: PositiveInt = Field(8, description="fetches at the same time")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = set(self.schemes) - {"https", "http", "s3", "file"}
        if unknown:
            raise ValueError(f"unknown scheme {sorted(unknown)}: use https, http, s3 or file")
        if "file" in self.schemes and self.file_root is None:
            raise ValueError(
                "file: URIs are allowed but file_root is not set: name the one directory that "
                "events may read from"
            )
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key go together: set both")
        if self.file_root is not None and not self.file_root.is_dir():
            raise ValueError(f"file_root {self.file_root} is not a directory: create or correct it")
        return self


class DecodeSettings(Group):
    """Caps that are checked before any pixel is decoded."""

    threads: PositiveInt = Field(2, description="decodes at the same time")
    max_bytes: PositiveInt = Field(20 * 1024 * 1024, description="largest encoded image")
    max_pixels: PositiveInt = Field(50_000_000, description="largest image, width x height")
    max_jpeg_scans: PositiveInt = Field(64, description="more scans than this is an attack")
    min_side_px: PositiveInt = Field(16, description="smaller images carry no evidence")
