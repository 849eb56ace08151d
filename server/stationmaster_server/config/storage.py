"""Settings of what is stored."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from stationmaster_server.config.types import Duration, Group, Positive

_LARGEST_COPY = 5 * 1024**3
"""What object storage copies in one request."""
_LEAST_PART = 5 * 1024**2
"""What object storage takes as a part that is not the last."""
_MOST_PARTS = 10_000
"""Of so many parts object storage makes a file."""
_SIMULATOR = re.compile(r"https?://(127\.0\.0\.1|localhost)(:\d+)?")


class PlaceKind(StrEnum):
    """Where the files of workspaces are."""

    LOCAL = "local"
    S3 = "s3"


class S3Settings(Group):
    """A bucket of object storage that speaks the protocol of S3, for `storage.place = "s3"`."""

    bucket: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")] = ""
    """The bucket. It has to be there."""
    region: str = ""
    """Its region; with an `endpoint` of your own it may stay empty."""
    endpoint: Annotated[str, Field(pattern=r"^(https?://[^/?#]+)?$")] = ""
    """Another address than AWS's: `https://minio.example.com:9000`. The bucket is then named in the path."""
    prefix: Annotated[str, Field(pattern=r"^(\w[\w.-]*(/\w[\w.-]*)*)?$", max_length=200)] = ""
    """What the names of all objects begin with, without a slash at either end, if others use the bucket too."""
    access_key_id: str = ""
    """Whose requests they are. Absent: what `AWS_ACCESS_KEY_ID` says, else the role of the container (ECS, EKS), else
    that of the machine (EC2), as with `credentials.kms_access_key_id`.
    """
    access_key: SecretStr | None = None
    """The secret of that."""
    session_token: SecretStr | None = None
    """And what comes with it, when it is lent for a while."""
    part_bytes: Annotated[int, Field(ge=64 * 1024, le=256 * 1024**2)] = 8 * 1024**2
    """What is sent at once of a file, and lost at most when a server dies; two are in memory for each upload. 5 MiB or
    more, as no store takes less; a simulator on this machine may. A file has 10,000 parts at most.
    """
    timeout: Duration = timedelta(seconds=60)
    """How long one request may take. It is tried again a few times."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.access_key_id) is not (self.access_key is not None):
            raise ValueError("storage.s3.access_key_id and storage.s3.access_key belong together")
        if self.bucket and not (self.region or self.endpoint):
            raise ValueError("storage.s3.bucket needs storage.s3.region, or the storage.s3.endpoint of your own")
        if self.part_bytes < _LEAST_PART and not _SIMULATOR.fullmatch(self.endpoint):
            raise ValueError("storage.s3.part_bytes must be 5242880 or more: object storage takes no smaller parts")
        return self


class StorageSettings(Group):
    """The files of workspaces, and reports of executions, which are kept in the database."""

    place: PlaceKind = PlaceKind.LOCAL
    """Where the files of workspaces are: `local`, in the data folder, or `s3`. They are not moved when it changes. With
    `s3` the runtime CLAUDE, whose tools need a folder, is not offered.
    """
    s3: S3Settings = S3Settings()

    max_file_bytes: Positive = 5 * 1024**3
    """The largest file that is taken in."""
    upload_retention: Duration = timedelta(days=1)
    """How long an upload that broke off can be gone on with. Until then what it set aside of the quotas is not free."""

    max_archive_bytes: Positive = 20 * 1024**3
    """How many bytes the files of an archive may have together, when it is made and when it is restored."""
    max_archive_files: Positive = 100_000
    """How many files these may be."""
    max_archive_ratio: Positive = 200
    """How many times the bytes that it has an archive from elsewhere may unpack to; 64 MiB it always may."""
    archive_retention: Duration = timedelta(days=180)
    """Archives that are older are deleted."""

    max_report_bytes: Positive = 32 * 1024 * 1024
    """The largest report that is stored, in one format."""
    report_retention: Duration = timedelta(days=180)
    """Reports that are older are deleted, and before that with the executions that they are of."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.place is PlaceKind.S3:
            if not self.s3.bucket:
                raise ValueError('storage.place = "s3" needs storage.s3.bucket')
            if self.max_file_bytes > _LARGEST_COPY:
                raise ValueError(f"storage.max_file_bytes must not be more than {_LARGEST_COPY} in object storage")
            needed = -(-max(self.max_file_bytes, self.max_archive_bytes) // _MOST_PARTS)
            if self.s3.part_bytes < needed:
                raise ValueError(
                    f"storage.s3.part_bytes must be {needed} or more for storage.max_file_bytes and"
                    f" storage.max_archive_bytes: a file has {_MOST_PARTS} parts at most"
                )
        return self
