"""The watchdog: a database that is away is told in time, a busy server is not taken for one without a database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from stationmaster_server.app.root import App
from stationmaster_server.app.watchdog import AWAY_WITHIN, DATABASE, Watchdog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.rpc.health import SERVICE, SERVING, WHOLE_SERVER, HealthBoard

from tests.fixtures.outage import Outage
from tests.fixtures.scratch import scratch
from tests.fixtures.server import server_settings
from tests.waiting import until

TENANT = Tenant(new_id(), new_id())


class Cable:
    """Passes bytes between a socket of its own and that of PostgreSQL, until it is cut: then nothing, and no end."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._pairs: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self.mend()

    def cut(self) -> None:
        """Pass nothing more: both ends believe that the other is silent."""
        self._whole.clear()

    def mend(self) -> None:
        """Pass bytes on again."""
        self._whole.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        there, back = await asyncio.open_unix_connection(self._socket)
        self._pairs |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        """End every connection."""
        self.mend()
        for writer in self._pairs:
            writer.transport.abort()


@asynccontextmanager
async def cable_to(database_url: str) -> AsyncIterator[tuple[Cable, str]]:
    """A cable to the database, and the URL of the database through it."""
    folder = parse_qs(urlsplit(database_url).query)["host"][0]
    with scratch("stationmaster-cable-") as ours:
        cable = Cable(Path(folder) / ".s.PGSQL.5432")
        server = await asyncio.start_unix_server(cable.connected, ours / ".s.PGSQL.5432")
        try:
            yield cable, f"{database_url.partition('?')[0]}?host={quote(str(ours), safe='/')}"
        finally:
            server.close()
            cable.close()


@asynccontextmanager
async def small(url: str) -> AsyncIterator[Database]:
    """A database with one connection for calls and one for engines."""
    database = await Database.connect(url, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=30))
    try:
        yield database
    finally:
        await database.close()


def needing() -> HealthBoard:
    """A board of a server that needs the database."""
    board = HealthBoard()
    board.require(DATABASE)
    board.add(SERVICE, {DATABASE})
    return board


async def next_answer(watchdog: Watchdog) -> None:
    """Wait until the database has answered the watchdog once more; TimeoutError when it does not."""
    before = watchdog.answer_seconds

    async def answered() -> bool:
        return watchdog.answer_seconds != before

    await until(answered, seconds=10)


async def test_a_server_whose_connections_are_all_busy_serves_on(database_url: str) -> None:
    board = needing()
    async with small(database_url) as database, Watchdog(database, board) as watchdog:
        await next_answer(watchdog)
        async with database.tenant(TENANT) as calls, database.system() as engines:  # every connection there is
            await calls.fetchval("SELECT 1")
            await engines.fetchval("SELECT 1")
            for _ in range(4):
                await next_answer(watchdog)
                assert board.status(WHOLE_SERVER) == board.status(SERVICE) == SERVING, board.missing


async def test_a_database_that_refuses_is_told_at_once_though_every_connection_is_busy(
    database_url: str, outage: Outage
) -> None:
    board = needing()
    async with small(database_url) as database, Watchdog(database, board) as watchdog:
        await next_answer(watchdog)
        with suppress(Exception):  # the outage ends the transactions
            async with database.tenant(TENANT) as calls, database.system() as engines:
                await calls.fetchval("SELECT 1")
                await engines.fetchval("SELECT 1")
                await outage.begin()
                began = time.monotonic()
                await until(lambda: gone(board))
                assert time.monotonic() - began < AWAY_WITHIN.total_seconds()
        assert board.status(WHOLE_SERVER) != SERVING
        await outage.end()
        await until(lambda: back(board))


async def test_a_full_database_that_answers_the_pools_is_not_away(database_url: str, outage: Outage) -> None:
    board = needing()
    async with small(database_url) as database, Watchdog(database, board) as watchdog:
        await next_answer(watchdog)
        probing = watchdog._probe._connection
        assert probing is not None
        await outage.fill_up()
        await outage.cut(probing.get_server_pid())
        for _ in range(4):  # with idle connections
            await next_answer(watchdog)
            assert board.status(WHOLE_SERVER) == board.status(SERVICE) == SERVING, board.missing
        async with database.tenant(TENANT) as calls, database.system() as engines:  # with none
            process_id = await calls.fetchval("SELECT pg_backend_pid()")
            await engines.fetchval("SELECT 1")
            for _ in range(2):
                await next_answer(watchdog)
                assert board.status(WHOLE_SERVER) == board.status(SERVICE) == SERVING, board.missing
        await outage.cut(process_id)  # no call has a connection any more, nor gets one
        await until(lambda: gone(board))
        await outage.end()
        await until(lambda: back(board))


async def test_a_database_that_is_silent_is_told_in_time_and_so_is_its_return(database_url: str) -> None:
    board = needing()
    async with cable_to(database_url) as (cable, url), small(url) as database, Watchdog(database, board) as watchdog:
        await next_answer(watchdog)
        assert board.status(WHOLE_SERVER) == SERVING
        cable.cut()
        began = time.monotonic()
        await until(lambda: gone(board))
        assert time.monotonic() - began < AWAY_WITHIN.total_seconds() + 1  # what the machine may add
        cable.mend()
        await until(lambda: back(board))
        await next_answer(watchdog)


async def test_a_server_that_stops_does_not_wait_for_a_database_that_is_silent(
    database_url: str, tmp_path: Path
) -> None:
    async with cable_to(database_url) as (cable, url):
        async with App(server_settings(tmp_path / "data", url)):
            cable.cut()
            began = time.monotonic()
        assert time.monotonic() - began < 20  # a statement is waited for 35 s


async def gone(board: HealthBoard) -> bool:
    """Whether the server says that it cannot serve."""
    return board.status(WHOLE_SERVER) != SERVING and board.status(SERVICE) != SERVING


async def back(board: HealthBoard) -> bool:
    """Whether it serves."""
    return board.status(WHOLE_SERVER) == board.status(SERVICE) == SERVING
