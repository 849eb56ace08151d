"""The queries of experiments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts.experiment_model import Experiment, ExperimentState, Metric, Slots, Variant

LISTING = Listing(
    {
        "display_name": Field("e.display_name", str),
        "prompt": Field("'prompts/' || e.prompt_id", str),
        "state": Field("e.state", ExperimentState),
        "exclusion_group": Field("e.exclusion_group", str),
        "create_time": Field("e.created_at", datetime),
    },
    key="e.id",
    default_order="create_time desc",
)
_COLUMNS = (
    "e.id, e.prompt_id, e.prompt_uid, e.user_id, e.display_name, e.description, e.label, e.variants, e.traffic,"
    " e.exclusion_group, e.metric, e.alpha, e.minimum, e.state, e.slots, e.winner, e.etag, e.created_at, e.started_at,"
    " e.ended_at"
)


async def insert(tx: Transaction, organization_id: UUID, new: Experiment) -> Experiment:
    """A new one."""
    sql = f"""
    INSERT INTO prompt_experiments AS e
        (organization_id, id, prompt_id, prompt_uid, user_id, display_name, description, label, variants, traffic,
         exclusion_group, metric, alpha, minimum, state, slots, winner, etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, '[]', '', $16) RETURNING {_COLUMNS}
    """
    variants = [[each.variant_id, each.version, each.weight] for each in new.variants]
    row = await tx.fetchrow(
        sql,
        organization_id,
        new.id,
        new.prompt_id,
        new.prompt_uid,
        new.user_id,
        new.display_name,
        new.description,
        new.label,
        variants,
        new.traffic,
        new.exclusion_group,
        new.metric.value,
        new.alpha,
        new.minimum,
        new.state.value,
        new.etag,
    )
    return _experiment(row)


async def get(tx: Transaction, organization_id: UUID, experiment_id: UUID, *, lock: bool = False) -> Experiment | None:
    """One; with `lock` nobody else changes it until the transaction ends."""
    sql = f"SELECT {_COLUMNS} FROM prompt_experiments e WHERE e.organization_id = $1 AND e.id = $2"
    row = await tx.fetchrow(f"{sql} FOR NO KEY UPDATE" if lock else sql, organization_id, experiment_id)
    return None if row is None else _experiment(row)


async def running(tx: Transaction, organization_id: UUID, prompt_id: str) -> Sequence[Experiment]:
    """Those of a prompt that run, the oldest first."""
    sql = f"""
    SELECT {_COLUMNS} FROM prompt_experiments e
    WHERE e.organization_id = $1 AND e.prompt_id = $2 AND e.state = 'RUNNING' ORDER BY e.started_at, e.id
    """
    return [_experiment(row) for row in await tx.fetch(sql, organization_id, prompt_id)]


async def taken(tx: Transaction, organization_id: UUID, group: str) -> Sequence[Slots]:
    """The slots of a group that are taken; until the transaction ends nobody else takes any."""
    lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 20261127))"
    await tx.execute(lock, f"{organization_id} {group}")
    sql = """
    SELECT slots FROM prompt_experiments
    WHERE organization_id = $1 AND exclusion_group = $2 AND state = 'RUNNING'
    """
    return [_slots(row["slots"]) for row in await tx.fetch(sql, organization_id, group)]


async def write_state(tx: Transaction, organization_id: UUID, changed: Experiment) -> Experiment:
    """Write how one that is locked stands: its state, slots, winner and times."""
    sql = f"""
    UPDATE prompt_experiments e SET state = $3, slots = $4, winner = $5, etag = $6,
           started_at = CASE $3 WHEN 'RUNNING' THEN now() ELSE e.started_at END,
           ended_at = CASE WHEN $3 <> 'RUNNING' AND e.state <> 'STOPPED' THEN now() ELSE e.ended_at END
    WHERE e.organization_id = $1 AND e.id = $2 RETURNING {_COLUMNS}
    """
    slots = [list(each) for each in changed.slots]
    row = await tx.fetchrow(sql, organization_id, changed.id, changed.state.value, slots, changed.winner, changed.etag)
    return _experiment(row)


async def list_of(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[Experiment]:
    """A page; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {_COLUMNS}, {clause.cursor_sql} FROM prompt_experiments e
    WHERE e.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), _experiment)


def _slots(document: Any) -> Slots:
    return tuple((first, end) for first, end in document)


def _experiment(row: Any) -> Experiment:
    return Experiment(
        id=row["id"],
        prompt_id=row["prompt_id"],
        prompt_uid=row["prompt_uid"],
        user_id=row["user_id"],
        display_name=row["display_name"],
        description=row["description"],
        label=row["label"],
        variants=tuple(Variant(*each) for each in row["variants"]),
        traffic=row["traffic"],
        exclusion_group=row["exclusion_group"],
        metric=Metric(row["metric"]),
        alpha=row["alpha"],
        minimum=row["minimum"],
        state=ExperimentState(row["state"]),
        slots=_slots(row["slots"]),
        winner=row["winner"],
        etag=row["etag"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
