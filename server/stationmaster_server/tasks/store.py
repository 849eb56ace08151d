"""The queries of tasks. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.db.listing import Clause, Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, InvalidArgument, NotFound, Reason
from stationmaster_server.tasks.model import DependencyMode, Task, TaskState, task_name
from stationmaster_server.tasks.task_json import (
    options_from_json,
    options_to_json,
    schedule_from_json,
    schedule_to_json,
    variables_from_json,
    variables_to_json,
)

LISTING = Listing(
    {
        "task_id": Field("t.task_id", str),
        "display_name": Field("t.display_name", str),
        "kind": Field("t.kind", str),
        "state": Field("t.state", TaskState),
        "labels": Field("t.labels", dict),
        "create_time": Field("t.created_at", datetime),
        "update_time": Field("t.updated_at", datetime),
    },
    key="t.task_id",
    key_type=str,
    default_order="create_time desc",
    order_fields=["task_id", "display_name", "kind", "state", "create_time", "update_time"],
)
_COLUMNS = """
    t.task_id, t.uid, t.user_id, t.kind, t.display_name, t.description, t.payload, t.secrets, t.variables, t.schedule,
    t.options,
    t.dependency_mode, t.labels, t.state, t.state_reason, t.settled_until, t.next_fire_at, t.last_fire_at, t.fired,
    t.skipped, t.etag, t.text_etag, t.created_at, t.updated_at,
    (SELECT e.id FROM executions e WHERE e.organization_id = t.organization_id AND e.task_uid = t.uid
      ORDER BY e.created_at DESC, e.id DESC LIMIT 1) AS last_execution_id"""
_ONE = f"SELECT {_COLUMNS} FROM tasks t WHERE t.organization_id = $1 AND t.task_id = $2"


async def insert(tx: Transaction, organization_id: UUID, task: Task) -> Task:
    """A new task; its times are the database's. AlreadyExists when the id is taken."""
    sql = f"""
    INSERT INTO tasks AS t (organization_id, task_id, kind, uid, user_id, display_name, description, payload,
        variables, schedule, options, dependency_mode, labels, etag, settled_until, next_fire_at, secrets,
        text_etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $14) RETURNING {_COLUMNS}
    """
    try:
        row = await tx.fetchrow(
            sql, organization_id, task.task_id, task.kind, task.uid, task.user_id, *_changeable(task)
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "tasks_pkey":
            raise
        raise AlreadyExists("Task", task_name(task.task_id)) from None
    return _task(row)


async def get(tx: Transaction, organization_id: UUID, task_id: str) -> Task:
    """One task. Raises NotFound."""
    return _found(await tx.fetchrow(_ONE, organization_id, task_id), task_id)


async def get_many(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[Task]:
    """The tasks of these ids that there are, in any order."""
    sql = f"SELECT {_COLUMNS} FROM tasks t WHERE t.organization_id = $1 AND t.task_id = ANY($2)"
    return [_task(row) for row in await tx.fetch(sql, organization_id, list(task_ids))]


async def owners(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[UUID]:
    """Whose the tasks are, in this order, without reading what they are. Raises NotFound for the first missing."""
    sql = "SELECT task_id, user_id FROM tasks WHERE organization_id = $1 AND task_id = ANY($2)"
    found = {row[0]: row[1] for row in await tx.fetch(sql, organization_id, list(task_ids))}
    for task_id in task_ids:
        if task_id not in found:
            raise NotFound("Task", task_name(task_id))
    return [found[task_id] for task_id in task_ids]


async def lock(tx: Transaction, organization_id: UUID, task_id: str) -> Task:
    """One task, that nobody else changes until this transaction ends. Raises NotFound."""
    return _found(await tx.fetchrow(f"{_ONE} FOR NO KEY UPDATE", organization_id, task_id), task_id)


async def share(tx: Transaction, organization_id: UUID, task_id: str) -> Task:
    """One task, that nobody changes until this transaction ends; others may share it. Raises NotFound."""
    return _found(await tx.fetchrow(f"{_ONE} FOR SHARE", organization_id, task_id), task_id)


async def share_after(tx: Transaction, organization_id: UUID, task_id: str, lock: str) -> Task:
    """As `share`, once the lock is held that the SQL expression `lock` takes (`$1`: the organization), in one trip.

    What the task says is as it stands then: PostgreSQL reads a row anew before it locks it. Its last execution, and
    whether there is such a task, are as of the start of the wait. Raises NotFound.
    """
    sql = f"""
    WITH held AS MATERIALIZED (SELECT {lock})
    SELECT {_COLUMNS} FROM held, tasks t WHERE t.organization_id = $1 AND t.task_id = $2 FOR SHARE OF t
    """
    return _found(await tx.fetchrow(sql, organization_id, task_id), task_id)


async def lock_many(tx: Transaction, organization_id: UUID, task_ids: Iterable[str]) -> list[Task]:
    """Those of the tasks that there are, locked in their order."""
    sql = f"""
    SELECT {_COLUMNS} FROM tasks t WHERE t.organization_id = $1 AND t.task_id = ANY($2::text[])
    ORDER BY t.task_id COLLATE "C" FOR NO KEY UPDATE
    """
    return [_task(row) for row in await tx.fetch(sql, organization_id, list(task_ids))]


async def update(tx: Transaction, organization_id: UUID, task: Task, *, scheduled: bool) -> Task:
    """Write what can be changed of a task; `scheduled`: when it is due, and what was skipped, as well."""
    sql = f"""
    UPDATE tasks t
    SET display_name = $3, description = $4, payload = $5, variables = $6, schedule = $7, options = $8,
        dependency_mode = $9, labels = $10, etag = $11, secrets = $14, updated_at = now(),
        text_etag = CASE WHEN (display_name, description, payload, labels)
                              IS DISTINCT FROM ($3::text, $4::text, $5::jsonb, $10::jsonb) THEN $11 ELSE text_etag END,
        settled_until = CASE WHEN $15 THEN $12 ELSE settled_until END,
        next_fire_at = CASE WHEN $15 THEN $13 ELSE next_fire_at END,
        skipped = CASE WHEN $15 THEN $16 ELSE skipped END
    WHERE organization_id = $1 AND task_id = $2 RETURNING {_COLUMNS}
    """
    args = (organization_id, task.task_id, *_changeable(task), scheduled, dict(task.skipped))
    return _task(await tx.fetchrow(sql, *args))


async def set_state(
    tx: Transaction, organization_id: UUID, task_id: str, state: TaskState, reason: str, etag: str
) -> Task:
    """Write how a task stands."""
    sql = f"""
    UPDATE tasks t SET state = $3, state_reason = $4, etag = $5, updated_at = now()
    WHERE organization_id = $1 AND task_id = $2 RETURNING {_COLUMNS}
    """
    return _task(await tx.fetchrow(sql, organization_id, task_id, state, reason, etag))


async def delete(tx: Transaction, organization_id: UUID, task_id: str) -> None:
    """Remove a task and what it depends on."""
    await tx.execute(
        "DELETE FROM task_dependencies WHERE organization_id = $1 AND task_id = $2", organization_id, task_id
    )
    await tx.execute("DELETE FROM tasks WHERE organization_id = $1 AND task_id = $2", organization_id, task_id)


async def list_tasks(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[Task]:
    """A page of tasks; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {_COLUMNS}, {clause.cursor_sql} FROM tasks t
    WHERE t.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), _task)


# Headlines are made for the page alone: each reads the whole text.
# What is searched of a task, as people read it: no JSON.
READABLE = """left(concat_ws(' · ', NULLIF(display_name, ''), NULLIF(description, ''),
    (SELECT string_agg(key || '=' || value, ' ') FROM jsonb_each_text(labels)),
    (SELECT string_agg(one #>> '{}', ' · ') FROM jsonb_path_query(payload, 'strict $.** ? (@.type() == "string")') one)
), 100000)"""
_SEARCH = f"""
WITH wanted AS (SELECT websearch_to_tsquery('simple', $2) AS query),
hits AS (
    SELECT t.*, ts_rank(t.words, wanted.query)::float8 AS score FROM wanted, tasks t
    WHERE t.organization_id = $1 AND t.words @@ wanted.query
), page AS (
    SELECT * FROM hits WHERE $3::float8 IS NULL OR (score, task_id) < ($3, $4::text)
    ORDER BY score DESC, task_id DESC LIMIT $5
)
SELECT {_COLUMNS}, score,
       ts_headline('simple', {READABLE}, wanted.query,
                   'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=24, MinWords=8') AS snippet
FROM page t, wanted ORDER BY score DESC, task_id DESC
"""


async def search(
    tx: Transaction, organization_id: UUID, query: str, page: PageRequest
) -> Page[tuple[Task, float, str]]:
    """A page of the tasks whose words match, the best first."""
    after: tuple[float | None, str | None]
    match page.after:
        case None:
            after = (None, None)
        case (float() | int() as score, str() as task_id):
            after = (float(score), task_id)
        case _:
            raise InvalidArgument.field("page_token", "is of another list", Reason.PAGE_TOKEN_INVALID)
    rows = await tx.fetch(_SEARCH, organization_id, query.replace("\0", " "), *after, page.size + 1)
    hits = [(_task(row), row["score"], row["snippet"]) for row in rows[: page.size]]
    cursors = [(score, task.task_id) for task, score, _ in hits]
    return Page(hits, cursors[-1] if len(rows) > page.size else None, cursors)


def _changeable(task: Task) -> tuple[Any, ...]:
    return (
        task.display_name,
        task.description,
        dict(task.payload),
        variables_to_json(task.variables),
        schedule_to_json(task.schedule),
        options_to_json(task.options),
        task.dependency_mode,
        dict(task.labels),
        task.etag,
        task.settled_until,
        task.next_fire_at,
        dict(task.secrets),
    )


def _found(row: Any, task_id: str) -> Task:
    if row is None:
        raise NotFound("Task", task_name(task_id))
    return _task(row)


def _task(row: Any) -> Task:
    return Task(
        task_id=row["task_id"],
        kind=row["kind"],
        uid=row["uid"],
        user_id=row["user_id"],
        payload=row["payload"],
        secrets=row["secrets"],
        variables=variables_from_json(row["variables"]),
        schedule=schedule_from_json(row["schedule"]),
        options=options_from_json(row["options"]),
        dependency_mode=DependencyMode(row["dependency_mode"]),
        display_name=row["display_name"],
        description=row["description"],
        labels=row["labels"],
        state=TaskState(row["state"]),
        state_reason=row["state_reason"],
        settled_until=row["settled_until"],
        next_fire_at=row["next_fire_at"],
        last_fire_at=row["last_fire_at"],
        fired=row["fired"],
        skipped=row["skipped"],
        last_execution_id=row["last_execution_id"],
        etag=row["etag"],
        text_etag=row["text_etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
