"""Turns as callers see them: a message is sent, a turn is cancelled, turns are listed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stationmaster_server.agents.runtime import Usage
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    PreconditionViolation,
    QuotaViolation,
    Reason,
    ResourceExhausted,
)
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.model import AuditEntry, Category, ToolPolicy
from stationmaster_server.identity.system import system_caller
from stationmaster_server.sessions import events, store, store_messages, turn_store
from stationmaster_server.sessions.model import (
    BUSY,
    CLOSED,
    OPEN_TURNS,
    BusyPolicy,
    Ending,
    Message,
    RecoveryPolicy,
    Session,
    SessionState,
    Turn,
    TurnState,
    owner_scope,
    session_name,
    transition,
    turn_name,
)
from stationmaster_server.sessions.recovery import MAX_ATTEMPTS
from stationmaster_server.sessions.runner import read_history, started_entry, user_message
from stationmaster_server.sessions.turn_ending import end_turn
from stationmaster_server.sessions.turn_services import First, Prepared, TurnServices
from stationmaster_server.work.model import NewWork, RetryPolicy, State, WorkItem

KIND = "turn"
MAX_QUEUED_TURNS = 100
"""More messages than that cannot wait in one session."""
RETRY = RetryPolicy(attempts=2 * MAX_ATTEMPTS, initial=timedelta(milliseconds=10), cap=timedelta(seconds=10), factor=4)
"""A turn whose server died is taken up again at once; `recovery` ends it before the engine would give up."""


@dataclass(frozen=True, slots=True)
class SendRequest:
    """A message, and what happens to it while the session is busy and when its server dies."""

    text: str
    busy_policy: BusyPolicy = BusyPolicy.QUEUE
    recovery: RecoveryPolicy = RecoveryPolicy.DEFAULT


@dataclass(frozen=True, slots=True)
class Started:
    """The turn that a message started, and the sequence after which its events come."""

    turn_id: UUID
    after_sequence: int


class Turns:
    """Starts, stops and lists turns."""

    def __init__(self, services: TurnServices) -> None:
        self._services = services

    async def send(
        self, caller: Caller, session_id: UUID, request: SendRequest, *, first: First | None = None
    ) -> Started:
        """Start a turn, or put it into the session's queue.

        Raises NotFound, FailedPrecondition(SESSION_BUSY, SESSION_CLOSED), ResourceExhausted(QUEUE_FULL).
        """
        async with self._services.database.tenant(caller.tenant) as tx:
            again = await recall(tx, caller.tenant, caller.request_key, Started)
            if again is not None:
                return again
            turn_id = new_id()
            if first is not None:
                await first(tx, turn_id)
            session = await store.lock_session(tx, caller.tenant.organization_id, session_id, owner_scope(caller))
            if session.state in CLOSED:
                raise _closed(session)
            turn = _new_turn(turn_id, session, request)
            if session.state in BUSY:
                started = await self._send_while_busy(tx, caller, session, turn, request)
            else:
                started = await self._send_now(tx, caller, session, turn, request)
            await remember(tx, caller.tenant, caller.request_key, started)
            return started

    async def cancel(self, caller: Caller, session_id: UUID, turn_id: UUID) -> Turn:
        """Ask for a turn's end; one that no worker runs ends at once, another within a second.

        Raises NotFound, FailedPrecondition(TURN_FINISHED).
        """
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant) as tx:
            again = await recall(tx, caller.tenant, caller.request_key, Turn)
            if again is not None:
                return again
            session = await store.lock_session(tx, organization_id, session_id, owner_scope(caller))
            turn = await turn_store.get_turn(tx, organization_id, session_id, turn_id)
            if turn.state not in OPEN_TURNS:
                raise _finished(turn)
            await self._stop(tx, caller, session, turn, "CANCEL", "")
            turn = await turn_store.get_turn(tx, organization_id, session_id, turn_id)
            await remember(tx, caller.tenant, caller.request_key, turn)
            return turn

    async def stop(self, tx: Transaction, caller: Caller, session: Session, turn_id: UUID, reason: str) -> None:
        """Cancel a turn, if it has not ended, in a transaction that has locked its session. Raises NotFound."""
        turn = await turn_store.get_turn(tx, caller.tenant.organization_id, session.id, turn_id)
        if turn.state in OPEN_TURNS:
            await self._stop(tx, caller, session, turn, "CANCEL", reason)

    async def stop_all(self, tx: Transaction, caller: Caller, session: Session, ending: str, reason: str) -> None:
        """Stop every open turn of a session that is paused or terminated, in a transaction that has locked it.

        Call it after the session's new state is written; `session` has that state.
        """
        for turn in reversed(await turn_store.open_turns(tx, caller.tenant.organization_id, session.id)):
            await self._stop(tx, caller, session, turn, ending, reason)

    async def get_turn(self, caller: Caller, session_id: UUID, turn_id: UUID) -> Turn:
        """One turn. Raises NotFound."""
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            await store.get_session(tx, organization_id, session_id, owner_scope(caller))
            return await turn_store.get_turn(tx, organization_id, session_id, turn_id)

    async def list_turns(
        self, caller: Caller, session_id: UUID, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Turn]:
        """A page of a session's turns. Raises NotFound, InvalidArgument."""
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            await store.get_session(tx, organization_id, session_id, owner_scope(caller))
            return await turn_store.list_turns(tx, organization_id, session_id, filter_text, order_by, page)

    async def _send_now(
        self, tx: Transaction, caller: Caller, session: Session, turn: Turn, request: SendRequest
    ) -> Started:
        """Start the turn; with a free worker on this server it begins here and now, in the same transaction."""
        organization_id = caller.tenant.organization_id
        message = await store_messages.append_message(tx, organization_id, user_message(turn, request.text))
        item = await self._submit(tx, caller, session, turn)
        state = transition(session_name(session.id), session.state, SessionState.PROCESSING)
        await store.set_state(tx, organization_id, session.id, state, current_turn_id=turn.id)
        appended = [
            events.message_added(message),
            events.session_state_changed(session.state, state, "", turn_id=turn.id),
        ]
        if item.state is State.RUNNING:
            turn = replace(turn, state=TurnState.RUNNING, attempts=1, started_at=turn.created_at)
            appended.append(events.turn_started(turn.id, 1, resumed=False))
        turn = replace(turn, user_message=message.number)
        started, above = await self._store(tx, caller, session, turn, request, appended)
        if item.state is State.RUNNING:
            session = replace(session, state=state, current_turn_id=turn.id)
            await self._begin_here(tx, caller, session, turn, message, item, above)
        return started

    async def _begin_here(
        self,
        tx: Transaction,
        caller: Caller,
        session: Session,
        turn: Turn,
        message: Message,
        item: WorkItem,
        above: tuple[ToolPolicy, ...],
    ) -> None:
        organization_id = caller.tenant.organization_id
        await self._services.log.set_fence(tx, organization_id, session.id, item.lease_token)
        owner = system_caller(organization_id, session.user_id, request_id=caller.request_id)
        # Its own act, wherever a turn begins: of the call the trail has that it sent a message.
        await self._services.audit.write(tx, owner, started_entry(session, turn, turn.attempts, resumed=False))
        history = await read_history(tx, organization_id, session) if session.message_count else [message]
        prepared = Prepared(owner, session, turn, history, above)
        tx.after_commit(lambda: self._services.prepared.__setitem__(turn.id, prepared))

    async def _send_while_busy(
        self, tx: Transaction, caller: Caller, session: Session, turn: Turn, request: SendRequest
    ) -> Started:
        if request.busy_policy is BusyPolicy.REJECT:
            raise _busy(session)
        organization_id = caller.tenant.organization_id
        before = await turn_store.open_turns(tx, organization_id, session.id)
        if len(before) > MAX_QUEUED_TURNS:
            raise _queue_full(session)
        await self._submit(tx, caller, session, turn)
        started, _ = await self._store(tx, caller, session, turn, request, [events.turn_queued(turn.id, len(before))])
        if request.busy_policy is not BusyPolicy.QUEUE:
            for other in reversed(before):
                await self._stop(tx, caller, session, other, request.busy_policy, "")
        return started

    async def _submit(self, tx: Transaction, caller: Caller, session: Session, turn: Turn) -> WorkItem:
        work = NewWork(
            organization_id=caller.tenant.organization_id,
            user_id=session.user_id,
            kind=KIND,
            item_id=turn.id,
            subject_id=turn.id,
            payload={"session_id": str(session.id), "request_id": caller.request_id},
            concurrency_key=str(session.id),
            retry=RETRY,
        )
        return await self._services.queue.submit(tx, work, claim_here=True)

    async def _store(
        self,
        tx: Transaction,
        caller: Caller,
        session: Session,
        turn: Turn,
        request: SendRequest,
        appended: list[NewEvent],
    ) -> tuple[Started, tuple[ToolPolicy, ...]]:
        organization_id = caller.tenant.organization_id
        stored = await self._services.log.append(tx, organization_id, session.id, appended)
        first = stored[0].sequence
        above = await turn_store.insert_turn(
            tx, organization_id, replace(turn, first_sequence=first), session.user_id, request.text
        )
        await self._services.audit.write(tx, caller, _sent(session, turn, request))
        return Started(turn.id, first - 1), above

    async def _stop(
        self, tx: Transaction, caller: Caller, session: Session, turn: Turn, ending: str, reason: str
    ) -> None:
        """A turn that runs is asked to end; its worker sees to it. Any other ends here."""
        organization_id = caller.tenant.organization_id
        entry = AuditEntry(
            action="turn.cancel",
            resource=turn_name(session.id, turn.id),
            category=Category.BUSINESS,
            reason=reason,
            details={"ending": ending},
        )
        await self._services.audit.write(tx, caller, entry)
        if turn.state is TurnState.RUNNING:
            await turn_store.set_ending(tx, organization_id, turn.id, ending, reason)
        else:
            state = TurnState.ROLLED_BACK if ending == BusyPolicy.ROLLBACK else TurnState.CANCELLED
            current = await store.get_session(tx, organization_id, session.id, None)
            await end_turn(tx, self._services, caller, current, turn, Ending(state, reason))
        # The item after the stream, as a worker that begins the turn locks them.
        await self._services.queue.cancel(tx, organization_id, turn.id)


def _new_turn(turn_id: UUID, session: Session, request: SendRequest) -> Turn:
    return Turn(
        id=turn_id,
        session_id=session.id,
        state=TurnState.QUEUED,
        user_message=0,
        recovery=request.recovery,
        reason="",
        error_message="",
        usage=Usage(),
        attempts=0,
        step=1,
        first_sequence=0,
        last_sequence=0,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


def _sent(session: Session, turn: Turn, request: SendRequest) -> AuditEntry:
    return AuditEntry(
        action="message.send",
        resource=turn_name(session.id, turn.id),
        category=Category.BUSINESS,
        details={"size_bytes": len(request.text.encode()), "busy_policy": str(request.busy_policy)},
    )


def _queue_full(session: Session) -> ResourceExhausted:
    name = session_name(session.id)
    text = f"{MAX_QUEUED_TURNS} turns of {name} wait already: wait for some to end"
    return ResourceExhausted(Reason.QUEUE_FULL, text, QuotaViolation(name, text), retry_after=timedelta(seconds=5))


def _busy(session: Session) -> FailedPrecondition:
    name = session_name(session.id)
    error = FailedPrecondition(
        Reason.SESSION_BUSY,
        f"{name} is {session.state} and the busy policy is REJECT",
        PreconditionViolation("SESSION_STATE", name, "wait for its turn to end, or send with another busy policy"),
    )
    error.metadata = {"session": name, "state": str(session.state)}
    return error


def _closed(session: Session) -> FailedPrecondition:
    name = session_name(session.id)
    hint = "resume it with ResumeSession" if session.state is SessionState.PAUSED else "fork it with ForkSession"
    error = FailedPrecondition(
        Reason.SESSION_CLOSED,
        f"{name} is {session.state} and takes no message",
        PreconditionViolation("SESSION_STATE", name, hint),
    )
    error.metadata = {"session": name, "state": str(session.state)}
    return error


def _finished(turn: Turn) -> FailedPrecondition:
    name = turn_name(turn.session_id, turn.id)
    return FailedPrecondition(
        Reason.TURN_FINISHED,
        f"{name} has ended already: {turn.state}",
        PreconditionViolation("TURN_STATE", name, "only a turn that has not ended can be cancelled"),
    )
