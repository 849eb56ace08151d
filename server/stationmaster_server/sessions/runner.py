"""The worker's side of a turn: begins or resumes it under the lease, and hands it to an execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from stationmaster_server.agents.model import Limits, RuntimeName
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.runtime import (
    HistoryMessage,
    Runtime,
    Text,
    ToolCall,
    ToolResult,
    TurnInput,
)
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.model import AuditEntry, Category, ToolPolicy
from stationmaster_server.identity.system import system_caller
from stationmaster_server.sessions import events, permission_store, store, store_messages, tool_call_store, turn_store
from stationmaster_server.sessions.begun import Begun
from stationmaster_server.sessions.execution import Execution
from stationmaster_server.sessions.limits import lowest, with_portions
from stationmaster_server.sessions.model import (
    OPEN_TURNS,
    Ending,
    Message,
    MessageRole,
    Partial,
    PermissionRequest,
    Session,
    SessionState,
    Turn,
    TurnState,
    transition,
    turn_name,
)
from stationmaster_server.sessions.recovery import Recovery, decide, partial_answer
from stationmaster_server.sessions.rulings import rulings
from stationmaster_server.sessions.turn_ending import asked_ending, end_turn
from stationmaster_server.sessions.turn_services import Prepared, TurnServices
from stationmaster_server.work import leases
from stationmaster_server.work.model import Cancelled, Outcome, Succeeded
from stationmaster_server.work.run import Run

CUT_SHORT = "the turn's run was cut short: its server died or was stopped"


class TurnRunner:
    """The handler of work items of kind `turn`."""

    def __init__(
        self,
        services: TurnServices,
        runtimes: Mapping[RuntimeName, Runtime],
        prices: Prices,
        workspace_of: Callable[[UUID], Path],
    ) -> None:
        self._services = services
        self._runtimes = runtimes
        self._prices = prices
        self._workspace_of = workspace_of

    async def __call__(self, run: Run) -> Outcome:
        """Run the turn of the item. The item is completed in the transaction of the turn's last step.

        Raises:
            LeaseLost: Another worker has taken the turn over.
        """
        prepared = self._services.prepared.pop(run.item.item_id, None)
        begun = self._go_on(prepared) if prepared is not None else await self._begin(run)
        if begun is not None:
            runtime = self._runtimes[begun.session.spec.runtime]
            await Execution(self._services, runtime, self._prices, run, begun).execute()
        return Succeeded()

    async def _begin(self, run: Run) -> Begun | None:
        item = run.item
        caller = system_caller(item.organization_id, item.user_id, request_id=item.payload["request_id"])
        session_id = UUID(item.payload["session_id"])
        turn = await self._take_over(run, caller, session_id)
        if turn.state not in OPEN_TURNS:
            await self._give_up(run)
            return None
        died = turn.state is TurnState.RUNNING
        partial = await partial_answer(self._services.log, caller.tenant, turn) if died else Partial()
        async with self._services.database.tenant(caller.tenant) as tx:
            session = await store.lock_session(tx, item.organization_id, session_id, None)
            turn = await turn_store.get_turn(tx, item.organization_id, session_id, turn.id)
            if turn.state in OPEN_TURNS:
                return await self._start(tx, run, caller, session, turn, partial, died=died)
        await self._give_up(run)
        return None

    async def _take_over(self, run: Run, caller: Caller, session_id: UUID) -> Turn:
        """From here on the stream takes the turn's events under this lease only."""
        async with self._services.database.system() as tx:
            # The stream before the item, as whoever stops a turn locks them.
            await self._services.log.set_fence(tx, run.item.organization_id, session_id, run.lease_token)
            await leases.hold(tx, run)
            return await turn_store.get_turn(tx, run.item.organization_id, session_id, run.item.subject_id)

    async def _give_up(self, run: Run) -> None:
        """The turn was ended before its worker began it."""
        async with self._services.database.system() as tx:
            await self._services.queue.complete(tx, run, Cancelled())

    async def _start(
        self, tx: Transaction, run: Run, caller: Caller, session: Session, turn: Turn, partial: Partial, *, died: bool
    ) -> Begun | None:
        organization_id = caller.tenant.organization_id
        results, in_flight = await tool_call_store.tool_results(tx, organization_id, turn.id, turn.step)
        ending = await asked_ending(tx, organization_id, turn.id)
        if died and decide(turn.recovery, call_in_flight=bool(in_flight), attempts=turn.attempts) is Recovery.INTERRUPT:
            ending = ending or Ending(TurnState.INTERRUPTED, "INTERRUPTED", CUT_SHORT)
        if ending is not None:
            await end_turn(tx, self._services, caller, session, turn, ending, partial=partial, fence=run.lease_token)
            await self._services.queue.complete(tx, run, Succeeded())
            return None
        past = await turn_store.past_of(tx, caller.tenant, turn.id)
        resumed = turn.state is not TurnState.QUEUED
        started, number = await self._first_message(tx, organization_id, turn, past.input_text)
        # Waiting for a permission is no failure: only a server that died makes one more attempt.
        attempt = turn.attempts + (turn.state is not TurnState.AWAITING_PERMISSION)
        started += await self._take_session(tx, organization_id, session, turn)
        started.append(events.turn_started(turn.id, attempt, resumed=resumed))
        if partial.first_delta:
            started.append(events.answer_restarted(turn.id, turn.step, partial.first_delta, partial.last_delta))
        appended = await self._services.log.append(tx, organization_id, session.id, started, fence=run.lease_token)
        await turn_store.start_turn(
            tx, organization_id, turn.id, attempt=attempt, user_message=number, first_sequence=appended[0].sequence
        )
        await self._services.audit.write(tx, caller, started_entry(session, turn, attempt, resumed=resumed))
        history = await read_history(tx, organization_id, session)
        answers = await permission_store.of_turn(tx, organization_id, turn.id, turn.step)
        pending = _has_calls(history[-1], turn)
        turn_input = self._input(
            organization_id, session, turn, history, past.above, answers, results if pending else {}, pending=pending
        )
        told = await self._told(tx, organization_id, turn) if resumed else frozenset[str]()
        return Begun(caller, session, turn, turn_input, _limits(session, past.portions), told)

    async def _told(self, tx: Transaction, organization_id: UUID, turn: Turn) -> frozenset[str]:
        """The MCP servers of which the turn has said already what is wrong with them."""
        bodies = await self._services.log.bodies(
            tx, organization_id, turn.session_id, turn.first_sequence - 1, turn.created_at, "mcp_message"
        )
        ours = (body for body in bodies if body["turn"] == str(turn.id) and body["logger"] == events.OURS)
        return frozenset(body["server"] for body in ours)

    @staticmethod
    async def _take_session(tx: Transaction, organization_id: UUID, session: Session, turn: Turn) -> list[NewEvent]:
        """The session is the turn's: whatever order the queue let the turns of a session in, it says whose it is."""
        if session.current_turn_id == turn.id and session.state is SessionState.PROCESSING:
            return []
        state = session.state
        if state is not SessionState.PROCESSING:
            state = transition(turn_name(session.id, turn.id), state, SessionState.PROCESSING)
        await store.set_state(tx, organization_id, session.id, state, current_turn_id=turn.id)
        if state is session.state:
            return []
        return [events.session_state_changed(session.state, state, "", turn_id=turn.id)]

    def _go_on(self, prepared: Prepared) -> Begun:
        """The turn's message began it under this worker's lease, in its own transaction."""
        session, turn = prepared.session, prepared.turn
        turn_input = self._input(
            prepared.caller.tenant.organization_id,
            session,
            turn,
            prepared.history,
            prepared.above,
            (),
            {},
            pending=False,
        )
        return Begun(prepared.caller, session, turn, turn_input, _limits(session, {}))

    def _input(
        self,
        organization_id: UUID,
        session: Session,
        turn: Turn,
        history: Sequence[Message],
        above: tuple[ToolPolicy, ...],
        answers: Sequence[PermissionRequest],
        results: Mapping[str, ToolResult],
        *,
        pending: bool,
    ) -> TurnInput:
        return TurnInput(
            organization_id=organization_id,
            user_id=session.user_id,
            session_id=session.id,
            turn_id=turn.id,
            spec=session.spec,
            workspace=self._workspace_of(session.id),
            history=[HistoryMessage(str(message.role).lower(), message.parts) for message in history],
            results=results,
            rulings=rulings(session, above, answers),
            step=turn.step + 1 if pending else turn.step,
            agent_id=session.agent_id,
        )

    async def _first_message(
        self, tx: Transaction, organization_id: UUID, turn: Turn, text: str
    ) -> tuple[list[NewEvent], int]:
        """The user's message of a turn that waited is stored when the turn begins, behind all that was before it."""
        if turn.user_message:
            return [], turn.user_message
        message = await store_messages.append_message(tx, organization_id, user_message(turn, text))
        return [events.message_added(message)], message.number


def _limits(session: Session, of_turn: Mapping[str, int]) -> Limits:
    """What holds for a turn: the stricter of the agent's and the session's limits, and what was allowed beyond them."""
    return with_portions(lowest(session.spec.limits, session.limits), session.portions, of_turn)


async def read_history(tx: Transaction, organization_id: UUID, session: Session) -> list[Message]:
    """What the model is shown: the session's memory window."""
    memory = session.spec.memory
    return await store_messages.window(tx, organization_id, session.id, memory.window_pairs, summary=memory.summarize)


def user_message(turn: Turn, text: str) -> Message:
    """The message that starts a turn, before it has a number."""
    return Message(turn.session_id, 0, turn.id, MessageRole.USER, (Text(text),), turn.created_at)


def _has_calls(newest: Message, turn: Turn) -> bool:
    mine = newest.turn_id == turn.id and newest.role is MessageRole.ASSISTANT
    return mine and any(isinstance(part, ToolCall) for part in newest.parts)


def started_entry(session: Session, turn: Turn, attempt: int, *, resumed: bool) -> AuditEntry:
    """What the audit trail is told when a turn begins or goes on."""
    return AuditEntry(
        action="turn.resume" if resumed else "turn.start",
        resource=turn_name(session.id, turn.id),
        category=Category.BUSINESS,
        details={"attempt": attempt, "model": session.spec.model},
    )
