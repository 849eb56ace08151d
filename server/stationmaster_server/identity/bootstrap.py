"""The first organization, its owner, and a key that operates the installation."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity import store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.keys import CreatedKey, NewKey, insert_key
from stationmaster_server.identity.model import PLATFORM_SCOPE, AuditEntry, Category, Role, User
from stationmaster_server.identity.system import system_caller

KEY_FILE = "admin.key"
OLD_KEY_FILE = "admin.key.old"
LOCAL = "local"
OPERATOR_SCOPES = ("*", PLATFORM_SCOPE)


async def ensure_local_administrator(database: Database, data_folder: Path, audit: AuditWriter | None = None) -> None:
    """Make the organization `local`, its owner and a key in `{data_folder}/admin.key` if there is no organization yet.

    A key of another database that is there becomes `admin.key.old`. Of several servers that start at once, one does it.
    The key operates the installation.
    """
    async with database.system() as tx:
        new = NewKey(display_name="Made at the first start", scopes=OPERATOR_SCOPES)
        made = await first_key(tx, new, audit)
        if made is None:
            return
        await asyncio.to_thread(_keep_old, data_folder / KEY_FILE)
        # Before the commit: a crash in between leaves a file that the next start writes anew, never a key nobody has.
        await asyncio.to_thread(write_private, data_folder / KEY_FILE, f"{made.secret}\n")


async def first_key(tx: Transaction, new: NewKey, audit: AuditWriter | None) -> CreatedKey | None:
    """The organization `local`, its owner and this key of theirs; None when there is an organization already."""
    await store.lock_bootstrap(tx)
    if await store.any_organization(tx):
        return None
    organization = await store.insert_organization(tx, new_id(), LOCAL)
    now = organization.created_at
    owner = User(new_id(), organization.id, "Local administrator", "", Role.OWNER, "", None, 1, now, now)
    owner = await store.insert_user(tx, owner)
    key, secret = await insert_key(tx, owner, new)
    if audit is not None:
        details = {"user": f"users/{owner.id}", "prefix": key.prefix, "scopes": list(key.scopes)}
        entry = AuditEntry("apiKey.create", f"apiKeys/{key.id}", category=Category.SECURITY, details=details)
        await audit.write(tx, system_caller(organization.id, owner.id), entry)
    return CreatedKey(key, secret)


def _keep_old(path: Path) -> None:
    """Keep the key of another database: whoever goes back to that needs it."""
    if path.is_file():
        path.replace(path.with_name(OLD_KEY_FILE))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, all at once: others see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes it with mode 0600.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
