"""Settings of credentials and of the keys that they are encrypted with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from stationmaster_server.config.types import Duration, Group

_NEVER = (
    "STATIONMASTER_",
    "DATABASE_URL",
    "PG",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_",
)
"""What the server itself is configured by is no credential of anybody."""


class CredentialSettings(Group):
    """Credentials, and the keys that they are encrypted with. Keys may come from several sources at once."""

    keys: SecretStr | None = None
    """Keys of 32 bytes (`openssl rand -base64 32`), `id:base64` of each, between commas; the last one is the newest."""
    key_file: Path | None = None
    """A file of keys, `id:base64` a line, mode 0600. Absent: `credentials.keys` in the data folder."""
    make_key_file: bool = True
    """Make the key file at the first start, when no key is configured in another way, and put new keys into it."""
    passphrase: SecretStr | None = None
    """A passphrase instead of a key: scrypt makes one of it at start."""
    passphrase_key_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")] = "passphrase"
    """The id of the passphrase's key: a new passphrase needs a new one."""
    kms_key: str | None = None
    """A symmetric key of AWS KMS (id, ARN or alias) that encrypts the keys: then none is on a disk."""
    kms_former_keys: tuple[str, ...] = ()
    """Keys of AWS KMS that encrypted keys before it did; needed until those keys are rotated and retired."""
    kms_region: str = ""
    """Its region."""
    kms_endpoint: str = ""
    """Another address that speaks the protocol of AWS KMS."""
    kms_access_key_id: str = ""
    """Whose requests to KMS are. Absent: the role of the container (ECS, EKS), else that of the machine (EC2)."""
    kms_access_key: SecretStr | None = None
    kms_session_token: SecretStr | None = None
    kms_container_url: str = ""
    """Where the role of the container is asked for: a URL (EKS), or a path of `http://169.254.170.2` (ECS)."""
    kms_container_token: SecretStr | None = None
    """What is shown there."""
    kms_container_token_file: Path | None = None
    """A file with that, read each time anew; it wins over `kms_container_token`."""
    active_key: str = ""
    """The id of the key that should encrypt new values; a rotation changes to it. Empty: the newest."""
    environment: tuple[str, ...] = ()
    """Patterns (`*`, `?`) of variables of the server's environment that credentials may name and imports may read."""
    grace: Duration = timedelta(days=1)
    """How long a version that was replaced stays readable, unless a call says otherwise."""
    announce_before: Duration = timedelta(days=7)
    """How long before it expires a credential is announced."""
    keep_deleted: Duration = timedelta(days=30)
    """How long a deleted credential can be undeleted before it is purged."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kms_key and not self.kms_region:
            raise ValueError("credentials.kms_key needs credentials.kms_region (AWS_REGION)")
        if self.kms_key and bool(self.kms_access_key_id) is not (self.kms_access_key is not None):
            raise ValueError("credentials.kms_access_key_id and credentials.kms_access_key belong together")
        return self


def allowed_variables(patterns: tuple[str, ...], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the server's environment that the patterns allow."""
    source = os.environ if environ is None else environ
    return {
        name: value
        for name, value in source.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        and not name.upper().startswith(_NEVER)
        and value.isprintable()
    }
