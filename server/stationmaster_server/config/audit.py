"""Settings of the audit trail."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from stationmaster_server.config.types import Duration, Group

IN_STORAGE = "storage"


class WitnessSettings(Group):
    """A witness that cosigns checkpoints (C2SP tlog-witness)."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Its submission prefix: `/add-checkpoint` is appended."""
    key: str
    """Its verifier key, `name+id+key`, of the type cosignature/v1."""


class AuditSettings(Group):
    """The audit trail and its Merkle trees."""

    signing_keys: SecretStr | None = None
    """Keys that sign checkpoints, 32 bytes each (`openssl rand -base64 32`), between commas; the last is the newest."""
    signing_key_file: Path | None = None
    """A file of keys, one a line, mode 0600. Absent: `audit.keys` in the data folder."""
    make_key_file: bool = True
    """Make the key file at the first start, when nobody has a key yet and none is configured."""
    sequence: bool = True
    """Give events their places on this server; some server has to."""
    witnesses: tuple[WitnessSettings, ...] = ()
    """Witnesses that are shown checkpoints: `url` (`/add-checkpoint` is appended) and `key` (`name+id+key`)."""
    copies: str = ""
    """Where checkpoints are copied to, written once: `storage`, for `checkpoints/` in the bucket of `storage.s3` (also
    when files are on a disk); or `s3://bucket/prefix`, `file:///folder` and the like, with credentials from the
    environment (obstore).
    """
    publish_interval: Duration = timedelta(seconds=10)
    """How often an organization's checkpoint is shown to witnesses and copied, when there is a new one."""
    keep_security: Duration | None = None
    """How long events of a category are kept; what they said is deleted then. Absent: for ever."""
    keep_business: Duration | None = None
    """The same, of the category business."""
    keep_compliance: Duration | None = None
    """The same, of the category compliance."""
    keep_system: Duration | None = None
    """The same, of the category system."""
