"""The queries of customizations. Row-level security shows each user its own; the queries name the user as well."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts.model import Customization, CustomizationMode

LISTING = Listing(
    {
        "agent": Field("CASE c.agent_id WHEN '' THEN '' ELSE 'agents/' || c.agent_id END", str),
        "create_time": Field("c.created_at", datetime),
        "update_time": Field("c.updated_at", datetime),
    },
    key="c.id",
    default_order="create_time desc",
)
_COLUMNS = (
    "c.id, c.prompt_id, c.user_id, c.agent_id, c.template, c.mode, c.variables, c.disabled, c.etag, c.created_at,"
    " c.updated_at"
)
_OWN = "c.organization_id = $1 AND c.user_id = $2"


async def insert(tx: Transaction, tenant: Tenant, new: Customization) -> Customization | None:
    """A new one; None when the user has one of this prompt and agent."""
    sql = f"""
    INSERT INTO prompt_customizations AS c
        (organization_id, id, prompt_id, user_id, agent_id, template, mode, variables, disabled, etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (organization_id, prompt_id, user_id, agent_id) DO NOTHING RETURNING {_COLUMNS}
    """
    whose = (tenant.organization_id, new.id, new.prompt_id, tenant.user_id, new.agent_id)
    row = await tx.fetchrow(sql, *whose, *_changeable(new))
    return None if row is None else _customization(row)


async def get(
    tx: Transaction, tenant: Tenant, prompt_id: str, customization_id: UUID, *, lock: bool = False
) -> Customization | None:
    """One of the user's; with `lock` nobody else changes it until the transaction ends."""
    sql = f"SELECT {_COLUMNS} FROM prompt_customizations c WHERE {_OWN} AND c.prompt_id = $3 AND c.id = $4"
    if lock:
        sql += " FOR NO KEY UPDATE"
    row = await tx.fetchrow(sql, tenant.organization_id, tenant.user_id, prompt_id, customization_id)
    return None if row is None else _customization(row)


async def of_user(tx: Transaction, tenant: Tenant, prompt_id: str) -> Mapping[str, Customization]:
    """Those of the user that are not disabled, by agent."""
    sql = f"SELECT {_COLUMNS} FROM prompt_customizations c WHERE {_OWN} AND c.prompt_id = $3 AND NOT c.disabled"
    rows = await tx.fetch(sql, tenant.organization_id, tenant.user_id, prompt_id)
    return {row["agent_id"]: _customization(row) for row in rows}


async def update(tx: Transaction, tenant: Tenant, changed: Customization) -> Customization:
    """Write all that can change of one that is locked."""
    sql = f"""
    UPDATE prompt_customizations c
    SET template = $4, mode = $5, variables = $6, disabled = $7, etag = $8, updated_at = now()
    WHERE {_OWN} AND c.id = $3 RETURNING {_COLUMNS}
    """
    whose = (tenant.organization_id, tenant.user_id, changed.id)
    return _customization(await tx.fetchrow(sql, *whose, *_changeable(changed)))


async def delete(tx: Transaction, tenant: Tenant, customization_id: UUID) -> None:
    """Remove one of the user's."""
    sql = f"DELETE FROM prompt_customizations c WHERE {_OWN} AND c.id = $3"
    await tx.execute(sql, tenant.organization_id, tenant.user_id, customization_id)


async def list_of(tx: Transaction, tenant: Tenant, prompt_id: str, clause: Clause) -> Page[Customization]:
    """A page of the user's; the clause's placeholders start at 4."""
    sql = f"""
    SELECT {_COLUMNS}, {clause.cursor_sql} FROM prompt_customizations c
    WHERE {_OWN} AND c.prompt_id = $3 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    rows = await tx.fetch(sql, tenant.organization_id, tenant.user_id, prompt_id, *clause.args)
    return clause.page(rows, _customization)


def _changeable(one: Customization) -> tuple[Any, ...]:
    return one.template, one.mode.value, dict(one.variables), one.disabled, one.etag


def _customization(row: Any) -> Customization:
    return Customization(
        id=row["id"],
        prompt_id=row["prompt_id"],
        user_id=row["user_id"],
        agent_id=row["agent_id"],
        template=row["template"],
        mode=CustomizationMode(row["mode"]),
        variables=row["variables"],
        disabled=row["disabled"],
        etag=row["etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
