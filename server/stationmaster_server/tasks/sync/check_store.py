"""The queries of checks that the process which holds a target does for another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stationmaster_server.db.transaction import Transaction


async def ask(tx: Transaction, service_id: str, place: str, asked_by: str) -> Mapping[str, Any] | None:
    """Have a target checked by whoever holds it, once; what was found, if that has been done."""
    await tx.execute("DELETE FROM sync_checks WHERE asked_at < now() - interval '1 hour'")
    await tx.execute(
        "INSERT INTO sync_checks (service_id, place, asked_by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        service_id,
        place,
        asked_by,
    )
    sql = "SELECT found FROM sync_checks WHERE service_id = $1 AND place = $2 AND asked_by = $3"
    found: Mapping[str, Any] | None = await tx.fetchval(sql, service_id, place, asked_by)
    return found


async def asked(tx: Transaction, service_id: str, place: str) -> list[str]:
    """Who waits for a check of the target."""
    rows = await tx.fetch(
        "SELECT asked_by FROM sync_checks WHERE service_id = $1 AND place = $2 AND found IS NULL", service_id, place
    )
    return [row[0] for row in rows]


async def answer(tx: Transaction, service_id: str, place: str, askers: list[str], found: Mapping[str, Any]) -> None:
    """Tell those who asked what was found."""
    await tx.execute(
        "UPDATE sync_checks SET found = $4 WHERE service_id = $1 AND place = $2 AND asked_by = ANY($3)",
        service_id,
        place,
        askers,
        dict(found),
    )
