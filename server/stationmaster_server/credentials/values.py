"""Values that come in: what they may be, and how they become versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from stationmaster_server.credentials import version_store
from stationmaster_server.credentials.envelope import Place
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Credential, Value
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, ResourceExhausted

MOST_VERSIONS = 1_000
LARGEST_BYTES = 64 * 1024


def check_value(value: Value, *, encrypted: bool, needed: bool = True) -> None:
    """Raises InvalidArgument for a value that does not fit the kind of credential."""
    if encrypted and value.has_setting:
        raise InvalidArgument.field("setting", "is for settings (encrypted = false): a secret takes `value`")
    if not encrypted and value.secret:
        raise InvalidArgument.field("value", "is for secrets: a setting (encrypted = false) takes `setting`")
    if needed and not value:
        raise InvalidArgument.field("value" if encrypted else "setting", "is required")
    if value.has_setting and len(json.dumps(value.setting, ensure_ascii=False).encode()) > LARGEST_BYTES:
        raise InvalidArgument.field("setting", f"may have at most {LARGEST_BYTES:,} bytes of JSON")


def check_end(expires_at: datetime | None, field: str) -> None:
    """Raises InvalidArgument for an end that lies in the past."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidArgument.field(field, "lies in the past")


async def add(
    tx: Transaction,
    keyring: Keyring,
    caller: Caller,
    credential: Credential,
    value: Value,
    expires_at: datetime | None = None,
) -> int:
    """Store a value as the next version of a credential whose row is locked; the keyring has reserved a wrap.

    Raises Unavailable(ENCRYPTION_KEY_UNAVAILABLE), ResourceExhausted(LIMIT_REACHED).
    """
    organization_id = caller.tenant.organization_id
    if await version_store.count_live(tx, organization_id, credential.uid) >= MOST_VERSIONS:
        text = f"{credential.name} has {MOST_VERSIONS} versions: destroy old ones first"
        raise ResourceExhausted.too_many(credential.name, text)
    number = await version_store.next_version(tx, organization_id, credential.uid)
    content: Any = value.setting
    if credential.encrypted:
        content = keyring.seal(Place(organization_id, credential.uid, number), value.secret.encode())
    await version_store.insert(
        tx,
        organization_id,
        credential.uid,
        number,
        content,
        creator_id=caller.tenant.user_id,
        expires_at=expires_at,
    )
    return number


async def reserve(keyring: Keyring, *, encrypted: bool, count: int = 1) -> None:
    """Count the wraps of what is about to be stored; settings need none."""
    if encrypted and count:
        await keyring.reserve(count)
