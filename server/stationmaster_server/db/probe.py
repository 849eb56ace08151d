"""Asks whether the database answers, on a connection of its own: pools whose connections are all busy say nothing."""

from __future__ import annotations

import asyncpg

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Unavailable


class Probe:
    """One connection outside the pools, opened when it is first needed and again after it broke."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    async def ask(self) -> None:
        """One round trip; Unavailable, or what the driver raises, when the database is away. The caller limits it.

        One that has no connection to spare has answered, and is there for who has one already.
        """
        connection = self._connection
        if connection is None or connection.is_closed():
            try:
                connection = self._connection = await self._database.open_dedicated()
            except Unavailable as error:
                if isinstance(error.__cause__, asyncpg.TooManyConnectionsError) and self._database.connected:
                    return
                raise
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
