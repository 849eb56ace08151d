"""Asks whether the database answers, on a connection of its own: pools whose connections are all busy say nothing."""

from __future__ import annotations

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.engine import Database


class Probe:
    """One connection outside the pools, opened when it is first needed and again after it broke."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    async def ask(self) -> None:
        """One round trip; Unavailable, or what the driver raises, when the database is away. The caller limits it."""
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await self._database.open_dedicated()
        try:
            await connection.fetchval("SELECT 1")
        except BaseException:
            self.close()  # whatever came too late must not answer the next question
            raise

    def close(self) -> None:
        """Close the connection, without waiting for the database."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
