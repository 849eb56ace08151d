"""Reports are stored with the change that tells of them, bounded, and go when their time is over."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage.model import PIECE_BYTES, NewReport, ReportFormat
from stationmaster_server.storage.service import LISTING

from tests.fixtures.reports import MAX_BYTES, deposit, reports_of


async def count(database: Database, table: str) -> int:
    async with database.system() as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table}"))


async def actions(database: Database) -> list[tuple[str, str]]:
    async with database.system() as tx:
        rows = await tx.fetch("SELECT action, resource FROM audit_events ORDER BY created_at")
    return [(row["action"], row["resource"]) for row in rows]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_report_is_kept_in_pieces_with_its_size_and_sum(database: Database, tenant: Tenant, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    made = await deposit(database, tenant, data)
    assert (made.size_bytes, made.sha256) == (size, hashlib.sha256(data).hexdigest())
    async with database.tenant(tenant, read=True) as tx:
        rows = await tx.fetch("SELECT number, data FROM report_pieces ORDER BY number")
    assert b"".join(row["data"] for row in rows) == data
    assert [row["number"] for row in rows] == list(range(-(-size // PIECE_BYTES)))


async def test_a_stored_report_is_audited_in_the_same_transaction(database: Database, tenant: Tenant) -> None:
    made = await deposit(database, tenant)
    assert await actions(database) == [("report.create", f"reports/{made.id}")]


async def test_a_report_whose_transaction_fails_leaves_nothing(database: Database, tenant: Tenant) -> None:
    caller = system_caller(tenant.organization_id, tenant.user_id)
    new = NewReport(new_id(), "Lost", ReportFormat.PDF, b"%PDF")

    async def die() -> None:
        async with database.tenant(tenant) as tx:
            await reports_of(database).add(tx, caller, new)
            raise RuntimeError("the worker died")

    with pytest.raises(RuntimeError, match="the worker died"):
        await die()
    assert await count(database, "reports") == await count(database, "report_pieces") == 0
    assert await actions(database) == []


async def test_a_report_that_is_too_large_is_refused_with_what_to_do(database: Database, tenant: Tenant) -> None:
    with pytest.raises(FailedPrecondition, match=r"storage\.max_report_bytes") as refused:
        await deposit(database, tenant, b"x" * (MAX_BYTES + 1))
    assert refused.value.reason is Reason.LIMIT_REACHED
    assert await count(database, "reports") == 0


async def test_titles_are_cut_and_never_break_the_database(database: Database, tenant: Tenant) -> None:
    made = await deposit(database, tenant, title="a\0b" * 500)
    assert made.title == ("ab" * 500)[:300]


async def test_old_reports_are_deleted_and_that_is_audited(database: Database, tenant: Tenant) -> None:
    old, new = await deposit(database, tenant), await deposit(database, tenant)
    async with database.system() as tx:
        await tx.execute("UPDATE reports SET created_at = now() - interval '2 days' WHERE id = $1", old.id)
    assert await reports_of(database, retention=timedelta(days=1)).remove_old() == 1
    async with database.system() as tx:
        assert [row["id"] for row in await tx.fetch("SELECT id FROM reports")] == [new.id]
        assert [row["report_id"] for row in await tx.fetch("SELECT report_id FROM report_pieces")] == [new.id]
    assert (await actions(database))[-1] == ("report.delete", f"reports/{old.id}")


async def test_row_level_security_hides_reports_of_others(database: Database, tenant: Tenant) -> None:
    await deposit(database, tenant)
    async with database.tenant(Tenant(new_id(), new_id()), read=True) as tx:
        assert await tx.fetchval("SELECT count(*) FROM reports") == 0
        assert await tx.fetchval("SELECT count(*) FROM report_pieces") == 0


async def test_the_reports_of_an_execution_are_found_by_an_index(database: Database, tenant: Tenant) -> None:
    made = await deposit(database, tenant)
    clause = LISTING.sql(f'execution = "executions/{made.execution_id}"', "", PageRequest(10), start=2)
    sql = f"EXPLAIN SELECT r.id FROM reports r WHERE r.organization_id = $1 AND {clause.where_sql}"
    async with database.system() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await tx.fetch(sql, tenant.organization_id, *clause.args[:-1]))
    assert "reports_execution_idx" in plan
    assert "executions/" in plan.partition("Index Cond")[2]
