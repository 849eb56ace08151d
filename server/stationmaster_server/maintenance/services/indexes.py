"""Tables and indexes, kept fast: what changed much is vacuumed and analyzed before PostgreSQL would by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import structlog
from pydantic import Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.leftovers import drop_leftovers
from stationmaster_server.maintenance import index_store
from stationmaster_server.maintenance.base import BackgroundService, Operation, Options
from stationmaster_server.maintenance.model import Policy, Scope

_log = structlog.get_logger(__name__)


class IndexOptions(Options):
    """What index-optimization can be told."""

    interval_hours: Annotated[int, Field(ge=1, le=744, description="Every table is done after so many hours")] = 24
    change_threshold: Annotated[
        int, Field(ge=100, description="A table is done before that once so many of its rows changed")
    ] = 50_000
    reindex_bloat: Annotated[
        float, Field(ge=1.5, le=100, description="An index of vectors is made anew once it is so many times its data")
    ] = 4.0


class IndexOptimization(BackgroundService[IndexOptions]):
    """Vacuums and analyzes tables, and makes swollen indexes of vectors anew, without locking anybody out."""

    service_id = "index-optimization"
    description = "Vacuums and analyzes tables that changed much, and makes swollen indexes of vectors anew."
    policy = Policy(timedelta(minutes=10))
    scope = Scope.ONE_SERVER
    time_limit = timedelta(hours=1)
    options = IndexOptions

    def __init__(self, database: Database) -> None:
        self._database = database
        self._options = IndexOptions()
        self._told: set[str] = set()

    async def configure(self, options: IndexOptions) -> None:
        """Go by these thresholds."""
        self._options = options

    async def update(self) -> None:
        """Do the tables that are due."""
        await self._optimize(everything=False)

    def operations(self) -> tuple[Operation[Any], ...]:
        """All tables, due or not."""
        what = (
            "Vacuum and analyze every table that this login may, and make swollen indexes of vectors anew; drop what"
            " reindexing left that was ended."
        )
        return (Operation("optimize", what, Options, self._optimize_all, for_operators=True),)

    async def _optimize_all(self, _caller: Caller, _arguments: Options) -> Mapping[str, Any]:
        return await self._optimize(everything=True)

    async def _optimize(self, *, everything: bool) -> Mapping[str, Any]:
        options = self._options
        every = timedelta(hours=options.interval_hours)
        connection = await self._database.open_dedicated()
        try:
            await index_store.take_time(connection)
            dropped = await drop_leftovers(connection)
            tables, skipped = await index_store.due(connection, 0 if everything else options.change_threshold, every)
            for table in tables:
                await index_store.vacuum(connection, table)
            for table in await index_store.wholes(connection, tables):
                await index_store.analyze(connection, table)
            indexes = await index_store.swollen(connection, options.reindex_bloat)
            for index in indexes:
                await index_store.reindex(connection, index)
        finally:
            await connection.close()
        self._tell(skipped)
        return {"tables": tables, "skipped": skipped, "indexes": indexes, "dropped": dropped}

    def _tell(self, skipped: Sequence[str]) -> None:
        """Of each table once."""
        if new := sorted(set(skipped) - self._told):
            _log.warning("tables may not be vacuumed by this login, which only autovacuum does", tables=new)
            self._told.update(new)
