"""Ended items are forgotten after a while: none that anybody may still ask for."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import NotFound
from stationmaster_server.sessions.sweep_store import NEEDED_WORK
from stationmaster_server.work.model import State
from stationmaster_server.work.retention import forget_ended

from tests.work.conftest import Server

WEEK = timedelta(days=7)


async def ended(idle: Server, state: State, days: int) -> UUID:
    item = await idle.submit(idempotency_key=str(new_id()), idempotency_ttl=timedelta(hours=-1))
    async with idle.database.system() as tx:
        await tx.execute(
            "UPDATE work_items SET state = $2, finished_at = now() - $3 * interval '1 day' WHERE item_id = $1",
            item.item_id,
            state.value,
            days,
        )
    return item.item_id


async def test_only_what_ended_well_long_ago_is_forgotten(idle: Server, administrator_url: str) -> None:
    old = {state: await ended(idle, state, 8) for state in State}
    young = await ended(idle, State.SUCCEEDED, 6)
    of_open_turn = await ended(idle, State.SUCCEEDED, 8)
    administrator = await asyncpg.connect(administrator_url, server_settings={"session_replication_role": "replica"})
    await administrator.execute(
        "INSERT INTO turns (organization_id, id, session_id, user_id, state, input_text, recovery)"
        " VALUES ($1, $2, $3, $4, 'RUNNING', '', '')",
        idle.tenant.organization_id,
        of_open_turn,
        new_id(),
        idle.tenant.user_id,
    )
    await administrator.close()
    async with idle.database.system() as tx:
        assert await forget_ended(tx, WEEK, needed=NEEDED_WORK) == 2
    for state in (State.SUCCEEDED, State.CANCELLED):
        with pytest.raises(NotFound):
            await idle.get(old.pop(state))
    for item_id in (*old.values(), young, of_open_turn):
        await idle.get(item_id)


async def test_what_a_repeat_is_still_answered_with_is_kept(idle: Server) -> None:
    item = await idle.submit(idempotency_key="i", idempotency_ttl=timedelta(days=30))
    async with idle.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'SUCCEEDED', finished_at = now() - interval '8 days'")
        assert await forget_ended(tx, WEEK) == 0
    assert (await idle.submit(idempotency_key="i")).item_id == item.item_id
