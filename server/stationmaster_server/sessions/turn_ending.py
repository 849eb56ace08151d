"""How a turn ends: its messages are made whole, its requests withdrawn, its session is free for the next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.agents.runtime import Part, Text, ToolCall, ToolResult, Usage
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.model import AuditEntry, Category, Outcome
from stationmaster_server.sessions import events, permission_store, store, store_messages, tool_call_store, turn_store
from stationmaster_server.sessions.model import (
    BUSY,
    BusyPolicy,
    Ending,
    Message,
    MessageRole,
    Partial,
    Provenance,
    Session,
    SessionState,
    Turn,
    TurnState,
    transition,
    turn_name,
)
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.storage.file_store import changed_otherwise
from stationmaster_server.storage.places.place import Home

NOTHING = Usage()
UNFINISHED_CALL = "The call did not finish: the turn was stopped before it ended."


async def end_turn(
    tx: Transaction,
    services: TurnServices,
    caller: Caller,
    session: Session,
    turn: Turn,
    ending: Ending,
    *,
    before: Sequence[NewEvent] = (),
    partial: Partial | None = None,
    used: Usage = NOTHING,
    fence: UUID | None = None,
) -> None:
    """End the turn, in a transaction that holds the lock of its session's row.

    `before` are events of the same step, `used` what it has used; `turn.usage` is the whole turn's. `fence`
    is the worker's lease token, None where no worker runs the turn. Raises LeaseLost.
    """
    organization_id = caller.tenant.organization_id
    appended = list(before)
    if ending.state is TurnState.ROLLED_BACK:
        await store_messages.delete_turn_messages(tx, organization_id, session.id, turn.id)
    elif ending.state is not TurnState.COMPLETED:
        appended += await _keep_partial_work(tx, organization_id, turn, partial)
    if ending.state is not TurnState.COMPLETED:
        withdrawn = await permission_store.withdraw(tx, organization_id, turn.id)
        appended += [events.permission_resolved(request) for request in withdrawn]
    appended += await _free_session(tx, organization_id, session, turn, used)
    appended.append(events.turn_finished(turn, ending))
    stored = await services.log.append(tx, organization_id, session.id, appended, fence=fence)
    await turn_store.finish_turn(tx, organization_id, turn, ending, stored[-1].sequence, used)
    if turn.usage.tool_calls:  # its tools may have written files
        await changed_otherwise(tx, Home(organization_id, session.id), session.user_id)
    await services.audit.write(tx, caller, _audit_entry(session, turn, ending))


async def asked_ending(tx: Transaction, organization_id: UUID, turn_id: UUID) -> Ending | None:
    """How whoever stopped the turn wants it to end; None when nobody did."""
    asked, reason = await turn_store.get_ending(tx, organization_id, turn_id)
    if not asked:
        return None
    return Ending(TurnState.ROLLED_BACK if asked == BusyPolicy.ROLLBACK else TurnState.CANCELLED, reason)


async def _keep_partial_work(
    tx: Transaction, organization_id: UUID, turn: Turn, partial: Partial | None
) -> list[NewEvent]:
    """The text so far becomes a message; calls without a result get one, for a model accepts no call without."""
    if partial is not None and partial.text:
        kept = Message(
            session_id=turn.session_id,
            number=0,
            turn_id=turn.id,
            role=MessageRole.ASSISTANT,
            parts=(Text(partial.text),),
            created_at=turn.created_at,
            interrupted=True,
            provenance=_provenance(turn),
            first_delta=partial.first_delta,
            last_delta=partial.last_delta,
        )
        return [events.message_added(await store_messages.append_message(tx, organization_id, kept))]
    newest = await store_messages.last_message(tx, organization_id, turn.session_id)
    calls = _calls(newest, turn) if newest is not None else []
    if not calls:
        return []
    results, _ = await tool_call_store.tool_results(tx, organization_id, turn.id, turn.step)
    parts: list[Part] = [
        results.get(call.call_id, ToolResult(call.call_id, call.tool, UNFINISHED_CALL, is_error=True)) for call in calls
    ]
    tools = Message(
        session_id=turn.session_id,
        number=0,
        turn_id=turn.id,
        role=MessageRole.TOOL,
        parts=tuple(parts),
        created_at=turn.created_at,
        interrupted=True,
    )
    return [events.message_added(await store_messages.append_message(tx, organization_id, tools))]


def _provenance(turn: Turn) -> Provenance | None:
    """What is known of an answer that was cut: the prompt that its instructions came from, if they did."""
    if not turn.prompt_version:
        return None
    nothing = timedelta(0)
    return Provenance("", NOTHING, nothing, nothing, turn.prompt_version, turn.prompt_variant)


def _calls(message: Message, turn: Turn) -> list[ToolCall]:
    if message.turn_id != turn.id or message.role is not MessageRole.ASSISTANT:
        return []
    return [part for part in message.parts if isinstance(part, ToolCall)]


async def _free_session(
    tx: Transaction, organization_id: UUID, session: Session, turn: Turn, used: Usage
) -> list[NewEvent]:
    """The session goes to the next turn that waits, or is ACTIVE again; one that was paused or ended stays so."""
    if session.current_turn_id != turn.id:
        await store.add_usage(tx, organization_id, session.id, used)
        return []
    busy = session.state in BUSY
    state = await store.free_session(
        tx,
        organization_id,
        session.id,
        turn.id,
        used,
        state_if_waiting=_after(session, turn, SessionState.PROCESSING) if busy else session.state,
        state_if_idle=_after(session, turn, SessionState.ACTIVE) if busy else session.state,
    )
    return [] if state is session.state else [events.session_state_changed(session.state, state, "", turn_id=turn.id)]


def _after(session: Session, turn: Turn, wanted: SessionState) -> SessionState:
    if session.state is wanted:
        return wanted
    return transition(turn_name(session.id, turn.id), session.state, wanted)


def _audit_entry(session: Session, turn: Turn, ending: Ending) -> AuditEntry:
    failed = ending.state in (TurnState.FAILED, TurnState.INTERRUPTED, TurnState.LIMITED)
    return AuditEntry(
        action="turn.finish",
        resource=turn_name(session.id, turn.id),
        outcome=Outcome.FAILED if failed else Outcome.ALLOWED,
        category=Category.BUSINESS,
        reason=ending.reason,
        details={"state": str(ending.state), "model": session.spec.model}
        | ({"limit": ending.message} if ending.state is TurnState.LIMITED else {}),
    )
