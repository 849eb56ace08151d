"""A server that wraps everything anew until it is killed: `python -m tests.credentials.doomed_rewrapper URL KEYS`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.db.engine import Database

from tests.credentials.room import make_room


async def main(url: str, keys: str) -> None:
    """Say each batch before it is committed."""
    database = await Database.connect(url, pool_size=1, system_pool_size=2, connect_timeout=timedelta(seconds=10))
    room = await make_room(database, [EnvironmentKeys(keys)], batch=200)
    put = key_store.put_batch

    async def told(tx: Any, wrapped: Any) -> int:
        written = await put(tx, wrapped)
        sys.stdout.write(f"{written}\n")
        sys.stdout.flush()
        return written

    key_store.put_batch = told
    await room.rewrapper.run()


asyncio.run(main(*sys.argv[1:]))
