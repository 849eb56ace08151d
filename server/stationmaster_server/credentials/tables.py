"""The tables of credentials, their versions and grants, and of the keys that they are encrypted with."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from stationmaster_server.db.schema import system_table, tenant_table, timestamp

# The keys by id: never the keys themselves. `material` is what its provider needs to have the key again: the salt of a
# passphrase, or the key as a key service encrypted it.
credential_keys = system_table(
    "credential_keys",
    Column("key_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    # Opened before the key is used: a wrong one is told apart from a damaged value, and nothing is written with it.
    Column("canary", LargeBinary, nullable=False),
    Column("material", LargeBinary, nullable=False),
    # Reserved in blocks by each process, so rounded up.
    Column("wraps", BigInteger, nullable=False, server_default="0"),
    timestamp("created_at", default_now=True),
    # New versions are wrapped by one key on all servers.
    Index("credential_keys_primary_key", "is_primary", unique=True, postgresql_where=text("is_primary")),
)

# Ids that are not used again.
credential_retired_keys = system_table(
    "credential_retired_keys",
    Column("key_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("wraps", BigInteger, nullable=False),
    timestamp("created_at"),
    timestamp("retired_at", default_now=True),
)

# The newest rotation of the key; one row.
credential_key_rotation = system_table(
    "credential_key_rotation",
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("target_key_id", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False, server_default="0"),
    timestamp("started_at", default_now=True),
    timestamp("ended_at", nullable=True),
)

credentials = tenant_table(
    "credentials",
    # `WHERE organization_id = $1 AND credential_id = $2`: every access, read and change of one credential.
    Column("credential_id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("encrypted", Boolean, nullable=False),
    Column("environment_variable", Text, nullable=False),
    timestamp("expires_at", nullable=True),
    # Versions count from 1; the labels are versions. NULL: points to none.
    Column("last_version", BigInteger, nullable=False, server_default="0"),
    Column("current_version", BigInteger),
    Column("previous_version", BigInteger),
    Column("pending_version", BigInteger),
    # The `expires_at` that was announced, and the one that was told to have passed.
    timestamp("announced_for", nullable=True),
    timestamp("expired_for", nullable=True),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
    timestamp("deleted_at", nullable=True),
    timestamp("purge_at", nullable=True),
    # What versions and grants refer to: it stays when the id goes to another credential.
    Index("credentials_uid_key", "organization_id", "uid", unique=True),
    # ListCredentials in its default order.
    Index("credentials_created_at_idx", "organization_id", "created_at", "credential_id"),
    # What expires soon, and what is to be purged, over all organizations.
    Index("credentials_expires_at_idx", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("credentials_purge_at_idx", "purge_at", postgresql_where=text("purge_at IS NOT NULL")),
)

credential_versions = tenant_table(
    "credential_versions",
    Column("uid", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    # A secret: the three together with its key's id. A setting: `plain`. Destroyed: none of them.
    Column("format", SmallInteger, nullable=False),
    Column("ciphertext", LargeBinary),
    Column("wrapped_key", LargeBinary),
    Column("key_id", Text),
    # JSON as it was written: JSONB takes no NUL, and nothing looks into it here.
    Column("plain", JSON),
    timestamp("expires_at", nullable=True),
    timestamp("grace_ends_at", nullable=True),
    Column("trial", Text, nullable=False, server_default=""),
    timestamp("announced_for", nullable=True),
    timestamp("expired_for", nullable=True),
    Column("creator_id", Uuid, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("destroyed_at", nullable=True),
    ForeignKeyConstraint(
        ["organization_id", "uid"], ["credentials.organization_id", "credentials.uid"], ondelete="CASCADE"
    ),
    # A key that wraps something cannot be retired, and one that is retired wraps nothing, whoever writes meanwhile.
    ForeignKeyConstraint(["key_id"], ["credential_keys.key_id"]),
    # The rotation's next batch, how much a key wraps, and whether any version refers to a key that is to be retired.
    Index(
        "credential_versions_key_id_idx",
        "key_id",
        "organization_id",
        "uid",
        "version",
        postgresql_where=text("key_id IS NOT NULL"),
    ),
    Index("credential_versions_expires_at_idx", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

credential_grants = tenant_table(
    "credential_grants",
    Column("id", Uuid, primary_key=True),
    Column("uid", Uuid, nullable=False),
    # `users/…`, `apiKeys/…` or `agents/…`.
    Column("principal", Text, nullable=False),
    Column("purposes", ARRAY(Text), nullable=False),
    timestamp("expires_at", nullable=True),
    Column("creator_id", Uuid, nullable=False),
    timestamp("created_at", default_now=True),
    ForeignKeyConstraint(
        ["organization_id", "uid"], ["credentials.organization_id", "credentials.uid"], ondelete="CASCADE"
    ),
    # Whether any of an access's principals has a grant of the credential; by its first two columns: ListGrants.
    Index("credential_grants_principal_idx", "organization_id", "uid", "principal"),
)
