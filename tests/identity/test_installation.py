"""What all servers of an installation share."""

from __future__ import annotations

import asyncio

from stationmaster_server.db.engine import Database
from stationmaster_server.identity.installation import shared_secret


async def test_servers_that_ask_at_once_get_the_same_secret(database: Database) -> None:
    answers = await asyncio.gather(*(shared_secret(database, "page tokens") for _ in range(20)))
    assert len(set(answers)) == 1
    assert len(answers[0]) == 32
    assert await shared_secret(database, "page tokens") == answers[0]


async def test_each_purpose_has_its_own(database: Database) -> None:
    assert await shared_secret(database, "one") != await shared_secret(database, "two")
