"""What all servers of an installation share."""

from __future__ import annotations

import secrets

from stationmaster_server.db.engine import Database
from stationmaster_server.identity import store

_SECRET_BYTES = 32


async def shared_secret(database: Database, purpose: str) -> bytes:
    """A secret of 32 bytes that every server on this database has, made by whichever asks first.

    So that what one server signs (a page token) another one accepts.
    """
    async with database.system(autocommit=True) as tx:
        return await store.shared_secret(tx, purpose, secrets.token_bytes(_SECRET_BYTES))
