"""The rows of exports, page by page: as the lists of the services give them to the same caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from stationmaster_server.audit import store as audit_store
from stationmaster_server.audit.listing import LISTING as AUDIT_LISTING
from stationmaster_server.audit.model import AuditEvent
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Cursor, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.sessions import export_store
from stationmaster_server.sessions import store as session_store
from stationmaster_server.sessions.message_json import parts_to_json, provenance_to_json, searchable_text
from stationmaster_server.sessions.model import Message, Session, message_name, owner_scope, session_name, turn_name
from stationmaster_server.tasks import listing_store, store
from stationmaster_server.tasks.exports.model import Columns, Type, Wanted, What
from stationmaster_server.tasks.model import Execution, Task, execution_name, task_name
from stationmaster_server.tasks.task_json import schedule_to_json

T = TypeVar("T")
Row = dict[str, Any]
PAGE = 100
"""Rows in memory at once."""

_TEXT, _INTEGER, _BOOLEAN, _TIME, _JSON = Type.TEXT, Type.INTEGER, Type.BOOLEAN, Type.TIME, Type.JSON


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of thing. `scope`: what a caller needs to see any. To add one is to add it to `SOURCES`."""

    scope: str
    columns: Columns
    page: Callable[[Transaction, Caller, str, PageRequest], Awaitable[Page[Any]]]
    row: Callable[[Any], Row]
    listing: Listing

    def check(self, filter_text: str) -> None:
        """Whether a filter can be read. Raises InvalidArgument (INVALID_FILTER)."""
        self.listing.sql(filter_text, "", PageRequest(1))


class Pages:
    """All rows that are wanted, the oldest first. One page is in memory, and no transaction open between two."""

    def __init__(self, database: Database, source: Source, caller: Caller, wanted: Wanted) -> None:
        self._database = database
        self._source = source
        self._caller = caller
        self._wanted = wanted
        self.complete = False
        """At the end: whether there are no more than the limit."""

    async def __aiter__(self) -> AsyncGenerator[list[Row], None]:
        """The pages. Raises InvalidArgument (INVALID_FILTER)."""
        await self._page(self._wanted.filter_text, PageRequest(1))  # is it a filter by itself?
        filter_text, left = _filter(self._wanted), self._wanted.limit
        after: Cursor | None = None
        while left > 0:
            page = await self._page(filter_text, PageRequest(min(PAGE, left), after))
            yield [self._source.row(item) for item in page.items]
            left -= len(page.items)
            after = page.next_cursor
            if after is None:
                self.complete = True
                return

    async def _page(self, filter_text: str, request: PageRequest) -> Page[Any]:
        async with self._database.tenant(self._caller.tenant, read=True) as tx:
            return await self._source.page(tx, self._caller, filter_text, request)


def _filter(wanted: Wanted) -> str:
    parts = [f"({wanted.filter_text})"] if wanted.filter_text.strip() else []
    if wanted.since is not None:
        parts.append(f'create_time >= "{wanted.since.isoformat()}"')
    return " AND ".join([*parts, f'create_time < "{wanted.until.isoformat()}"'])


async def _sessions(tx: Transaction, caller: Caller, filter_text: str, page: PageRequest) -> Page[Session]:
    organization_id, owner = caller.tenant.organization_id, owner_scope(caller)
    return await session_store.list_sessions(
        tx, organization_id, owner, filter_text, "create_time", page, archived=True
    )


async def _messages(tx: Transaction, caller: Caller, filter_text: str, page: PageRequest) -> Page[Message]:
    return await export_store.list_all_messages(
        tx, caller.tenant.organization_id, owner_scope(caller), filter_text, page
    )


async def _audit(tx: Transaction, caller: Caller, filter_text: str, page: PageRequest) -> Page[AuditEvent]:
    clause = AUDIT_LISTING.sql(filter_text, "create_time", page, start=2)
    return await audit_store.list_events(tx, caller.tenant.organization_id, clause)


async def _tasks(tx: Transaction, caller: Caller, filter_text: str, page: PageRequest) -> Page[Task]:
    clause = store.LISTING.sql(filter_text, "create_time", page, start=2)
    return await store.list_tasks(tx, caller.tenant.organization_id, clause)


async def _executions(tx: Transaction, caller: Caller, filter_text: str, page: PageRequest) -> Page[Execution]:
    organization_id, owner = caller.tenant.organization_id, owner_scope(caller)
    return await listing_store.list_executions(tx, organization_id, owner, filter_text, "create_time", page)


def _session_row(session: Session) -> Row:
    usage = session.usage
    return {
        "name": session_name(session.id),
        "user": f"users/{session.user_id}",
        "display_name": session.display_name,
        "state": session.state.value,
        "state_reason": session.state_reason,
        "agent": f"agents/{session.agent_id}" if session.agent_id else "",
        "model": session.spec.model,
        "labels": session.labels,
        "parent_session": session_name(session.parent_session_id) if session.parent_session_id else "",
        "message_count": session.message_count,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cost_micros": usage.cost_micros,
        "cost_estimated": usage.cost_estimated,
        "model_calls": usage.model_calls,
        "tool_calls": usage.tool_calls,
        "create_time": session.created_at,
        "update_time": session.updated_at,
    }


def _message_row(message: Message) -> Row:
    return {
        "name": message_name(message.session_id, message.number),
        "session": session_name(message.session_id),
        "number": message.number,
        "turn": turn_name(message.session_id, message.turn_id) if message.turn_id else "",
        "role": message.role.value,
        "text": searchable_text(message.parts),
        "parts": parts_to_json(message.parts),
        "interrupted": message.interrupted,
        "provenance": provenance_to_json(message.provenance) if message.provenance else None,
        "create_time": message.created_at,
    }


def _audit_row(event: AuditEvent) -> Row:
    return {
        "name": f"auditEvents/{event.id}",
        "sequence": event.sequence,
        "create_time": event.created_at,
        "category": event.category.value,
        "action": event.action,
        "outcome": event.outcome.value,
        "actor": event.actor,
        "on_behalf_of": event.on_behalf_of,
        "api_key": event.api_key,
        "method": event.method,
        "resource": event.resource,
        "reason": event.reason,
        "request_id": event.request_id,
        "peer": event.peer,
        "details": event.details,
    }


def _task_row(task: Task) -> Row:
    return {
        "name": task_name(task.task_id),
        "user": f"users/{task.user_id}",
        "kind": task.kind,
        "display_name": task.display_name,
        "description": task.description,
        "payload": task.payload,
        "schedule": schedule_to_json(task.schedule),
        "labels": task.labels,
        "state": task.state.value,
        "state_reason": task.state_reason,
        "fire_count": task.fired,
        "create_time": task.created_at,
        "update_time": task.updated_at,
    }


def _execution_row(execution: Execution) -> Row:
    return {
        "name": execution_name(execution.id),
        "task": task_name(execution.task_id) if execution.task_id else "",
        "user": f"users/{execution.user_id}",
        "kind": execution.kind,
        "state": execution.state.value,
        "reason": execution.reason,
        "message": execution.message,
        "trigger": execution.trigger.value,
        "attempt_count": execution.attempts,
        "labels": execution.labels,
        "session": session_name(execution.session_id) if execution.session_id else "",
        "scheduled_time": execution.scheduled_for,
        "create_time": execution.created_at,
        "start_time": execution.started_at,
        "end_time": execution.finished_at,
    }


def _columns(texts: str, others: Mapping[str, Type]) -> Columns:
    """The columns of a row: `texts`, and those of other types."""
    return {**dict.fromkeys(texts.split(), _TEXT), **others}


_COUNTERS = (
    "message_count",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_micros",
    "model_calls",
    "tool_calls",
)
_TIMES: Mapping[str, Type] = {"create_time": _TIME, "update_time": _TIME}
SOURCES: Mapping[What, Source] = {
    What.SESSIONS: Source(
        "sessions.read",
        _columns(
            "name user display_name state state_reason agent model parent_session",
            {"labels": _JSON, "cost_estimated": _BOOLEAN, **dict.fromkeys(_COUNTERS, _INTEGER), **_TIMES},
        ),
        _sessions,
        _session_row,
        session_store.LISTING,
    ),
    What.MESSAGES: Source(
        "sessions.read",
        _columns(
            "name session turn role text",
            {"number": _INTEGER, "parts": _JSON, "interrupted": _BOOLEAN, "provenance": _JSON, "create_time": _TIME},
        ),
        _messages,
        _message_row,
        export_store.LISTING,
    ),
    What.AUDIT: Source(
        "audit.read",
        _columns(
            "name category action outcome actor on_behalf_of api_key method resource reason request_id peer",
            {"sequence": _INTEGER, "create_time": _TIME, "details": _JSON},
        ),
        _audit,
        _audit_row,
        AUDIT_LISTING,
    ),
    What.TASKS: Source(
        "tasks.read",
        _columns(
            "name user kind display_name description state state_reason",
            {"payload": _JSON, "schedule": _JSON, "labels": _JSON, "fire_count": _INTEGER, **_TIMES},
        ),
        _tasks,
        _task_row,
        store.LISTING,
    ),
    What.EXECUTIONS: Source(
        "tasks.read",
        _columns(
            "name task user kind state reason message trigger session",
            {
                "attempt_count": _INTEGER,
                "labels": _JSON,
                **dict.fromkeys(("scheduled_time", "create_time", "start_time", "end_time"), _TIME),
            },
        ),
        _executions,
        _execution_row,
        listing_store.LISTING,
    ),
}
