"""A PostgreSQL for floors and twins: the same binaries and settings as the server's embedded one, fsync on."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster
from stationmaster_server.db.embedded.server import Membership


class Postgres:
    """Databases in one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._made: dict[str, str] = {}

    async def database(self, name: str) -> str:
        """The URL of a database of this name, made at the first call."""
        if name not in self._made:
            connection = await asyncpg.connect(self._cluster.url(user=SUPERUSER, database="postgres"))
            await connection.execute(f"CREATE DATABASE {name} OWNER stationmaster")
            await connection.close()
            self._made[name] = self._cluster.url(database=name)
        return self._made[name]

    async def version(self) -> str:
        """For the table of what ran."""
        connection = await asyncpg.connect(self._cluster.url(user=SUPERUSER, database="postgres"))
        found = str(await connection.fetchval("SHOW server_version"))
        await connection.close()
        return found


@asynccontextmanager
async def postgres() -> AsyncIterator[Postgres]:
    """Runs as long as the block."""
    with temporary_folder("floors") as folder:
        member = await asyncio.to_thread(Membership.join, folder)
        try:
            yield Postgres(member.cluster)
        finally:
            await asyncio.to_thread(member.leave)


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A folder that other accounts may pass through (PostgreSQL does not run as root); gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"stationmaster-bench-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
