"""LISTEN that comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener

from tests.db.conditions import eventually


@pytest_asyncio.fixture
async def listener(database: Database) -> AsyncIterator[Listener]:
    listener = Listener(database)
    yield listener
    await listener.stop()


async def notify(database: Database, channel: str, payload: str) -> None:
    async with database.system(autocommit=True) as tx:
        await tx.execute("SELECT pg_notify($1, $2)", channel, payload)


async def test_a_notification_reaches_every_callback_of_its_channel(database: Database, listener: Listener) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listener.add("one", heard.put_nowait)
    listener.add("one", heard.put_nowait)
    listener.add("two", lambda _: heard.put_nowait("wrong"))
    await listener.start()
    await notify(database, "one", "hello")
    async with asyncio.timeout(5):
        assert [await heard.get(), await heard.get()] == ["hello", "hello"]


async def test_after_a_lost_connection_it_listens_again_and_says_that_something_may_be_missed(
    database: Database, listener: Listener, administrator_url: str
) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listener.add("one", heard.put_nowait)
    await listener.start()
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND pid <> pg_backend_pid()"
    )
    await administrator.close()
    async with asyncio.timeout(10):
        assert await heard.get() is None
        await notify(database, "one", "again")
        assert await heard.get() == "again"
    assert heard.empty()


async def test_a_failing_callback_harms_no_other(
    database: Database, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listener.add("one", lambda payload: heard.put_nowait(str(int(str(payload)))))
    listener.add("one", heard.put_nowait)
    await listener.start()
    await notify(database, "one", "hello")
    assert await asyncio.wait_for(heard.get(), 5) == "hello"
    await eventually(lambda: "a callback of the channel one failed" in caplog.text)


async def test_a_channel_cannot_be_added_too_late(listener: Listener) -> None:
    await listener.start()
    with pytest.raises(RuntimeError, match="before the listener starts"):
        listener.add("late", lambda _: None)
