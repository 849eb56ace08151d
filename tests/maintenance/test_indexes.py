"""Tables and indexes are looked after, however long that takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stationmaster_server.db.connection import Connection
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance import index_store
from stationmaster_server.maintenance.model import BY_DEFAULT, Figures
from stationmaster_server.maintenance.service import view_of
from stationmaster_server.maintenance.services.indexes import IndexOptimization


async def test_no_statement_is_ended_by_the_limit_of_calls(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, vacuum = list[str](), index_store.vacuum

    async def noted(connection: Connection, table: str) -> None:
        limits.append(await connection.fetchval("SHOW statement_timeout"))
        await vacuum(connection, table)

    monkeypatch.setattr(index_store, "vacuum", noted)
    done = await IndexOptimization(database)._optimize(everything=True)
    assert done["tables"]
    assert set(limits) == {"0"}


def test_settings_that_another_version_stored_are_shown_and_hide_nothing(database: Database) -> None:
    service = IndexOptimization(database)
    stored = replace(BY_DEFAULT, own={"interval_hours": 100_000, "gone": 1})
    shown = view_of(service, stored, Figures(), [], 0).own_settings
    assert (shown["interval_hours"], shown["gone"], shown["reindex_bloat"]) == (100_000, 1, 4.0)
