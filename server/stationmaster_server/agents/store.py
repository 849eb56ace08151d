"""The queries of agents. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.agents.model import Agent
from stationmaster_server.agents.spec_json import spec_from_json, spec_to_json
from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists

COLUMNS = "a.agent_id, a.uid, a.display_name, a.description, a.spec, a.etag, a.created_at, a.updated_at"


async def insert(tx: Transaction, organization_id: UUID, agent: Agent) -> Agent:
    """A new agent; its times are the database's. AlreadyExists when the id is taken."""
    sql = f"""
    INSERT INTO agents AS a (organization_id, agent_id, uid, display_name, description, model, spec, etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}
    """
    try:
        row = await tx.fetchrow(sql, organization_id, agent.agent_id, agent.uid, *_changeable(agent))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "agents_pkey":
            raise
        raise AlreadyExists("Agent", f"agents/{agent.agent_id}") from None
    return _agent(row)


async def get(tx: Transaction, organization_id: UUID, agent_id: str) -> Agent | None:
    """One agent."""
    sql = f"SELECT {COLUMNS} FROM agents a WHERE organization_id = $1 AND agent_id = $2"
    row = await tx.fetchrow(sql, organization_id, agent_id)
    return None if row is None else _agent(row)


async def lock(tx: Transaction, organization_id: UUID, agent_id: str) -> Agent | None:
    """One agent, that nobody else changes until this transaction ends."""
    sql = f"SELECT {COLUMNS} FROM agents a WHERE organization_id = $1 AND agent_id = $2 FOR NO KEY UPDATE"
    row = await tx.fetchrow(sql, organization_id, agent_id)
    return None if row is None else _agent(row)


async def update(tx: Transaction, organization_id: UUID, agent: Agent) -> Agent:
    """Writes what can be changed of an agent."""
    sql = f"""
    UPDATE agents a
    SET display_name = $3, description = $4, model = $5, spec = $6, etag = $7, updated_at = now()
    WHERE organization_id = $1 AND agent_id = $2 RETURNING {COLUMNS}
    """
    return _agent(await tx.fetchrow(sql, organization_id, agent.agent_id, *_changeable(agent)))


async def delete(tx: Transaction, organization_id: UUID, agent_id: str) -> None:
    """Removes an agent."""
    await tx.execute("DELETE FROM agents WHERE organization_id = $1 AND agent_id = $2", organization_id, agent_id)


async def list_agents(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[Agent]:
    """A page of an organization's agents; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {COLUMNS}, {clause.cursor_sql} FROM agents a
    WHERE a.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), _agent)


def _changeable(agent: Agent) -> tuple[Any, ...]:
    return agent.display_name, agent.description, agent.spec.model, spec_to_json(agent.spec), agent.etag


def _agent(row: Any) -> Agent:
    return Agent(
        agent_id=row["agent_id"],
        uid=row["uid"],
        display_name=row["display_name"],
        description=row["description"],
        spec=spec_from_json(row["spec"]),
        etag=row["etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
