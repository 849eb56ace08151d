"""The steps of a turn: each is one transaction under the worker's lease, and nothing else is awaited in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    Part,
    ToolCall,
    ToolCallFinished,
    ToolResult,
    Usage,
)
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.model import Amounts, AuditEntry, Category, Outcome
from stationmaster_server.identity.quotas import Reservation
from stationmaster_server.sessions import events, permission_store, store, store_messages, tool_call_store, turn_store
from stationmaster_server.sessions.begun import Begun
from stationmaster_server.sessions.model import (
    Breach,
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
from stationmaster_server.sessions.permission_webhook import announce
from stationmaster_server.sessions.turn_ending import NOTHING, asked_ending, end_turn
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.work import leases
from stationmaster_server.work.model import Succeeded, Suspended
from stationmaster_server.work.run import Run


@dataclass(frozen=True, slots=True)
class Steps:
    """Makes the steps of one attempt durable. Writing one raises LeaseLost when another worker has taken over."""

    services: TurnServices
    run: Run
    begun: Begun

    async def reserve(self, most: Usage, earlier: Reservation | None) -> Reservation:
        """Set aside what a model call can use at most, before it is made; what was for `earlier` attempts at it counts.

        Should this server die, it counts as used: the provider has very likely charged for the call that was cut.
        Raises QuotaExceeded.
        """
        quotas, caller, wanted = self.services.quotas, self.begun.caller, _amounts(most)
        if not await quotas.limits_any(caller, wanted):
            return earlier or Reservation(caller.tenant)
        async with quotas.telling(), self.services.database.system() as tx:
            return await quotas.reserve(tx, caller, wanted, earlier)

    async def pay_time(self, turn: Turn) -> timedelta | None:
        """Set some running time aside; returns for how long in all the turn may run, None where it is not limited.

        What has not passed when the turn stops running is given back then, by whoever says that it does. Raises
        QuotaExceeded.
        """
        quotas, caller = self.services.quotas, self.begun.caller
        if not await quotas.limits_time(caller):
            return None
        async with quotas.telling(), self.services.database.system() as tx:
            await self._locked_session(tx)
            time = await quotas.reserve_time(tx, caller)
            if time is None:
                return None
            left = await turn_store.pay_time(tx, self._organization_id, turn.id, time)
            await leases.hold(tx, self.run)
            return left

    async def instructed(self, turn: Turn) -> None:
        """Which prompt the model is told: should the server die, whoever keeps the answer so far can say so."""
        async with self.services.database.system() as tx:
            await self._locked_session(tx)
            await turn_store.set_prompt(tx, self._organization_id, turn)
            await leases.hold(tx, self.run)

    async def answered(
        self, turn: Turn, answer: AnswerCompleted, partial: Partial, reservation: Reservation | None, used: Usage
    ) -> None:
        """The model's answer becomes a message; without tool calls in it, the turn is complete."""
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            session = await self._locked_session(tx)
            audit_id = await self._audit(tx, turn, "turn.answer", model=answer.model)
            message = await store_messages.append_message(
                tx, self._organization_id, _answer(turn, answer, partial, audit_id)
            )
            added = events.message_added(message)
            if answer.calls:
                await self._append(tx, added)
                await self._count(tx, turn, turn.step, used)
            else:
                await self._end(tx, session, turn, Ending(TurnState.COMPLETED), (added,), None, used)
            await self._settle(tx, used, reservation)

    async def tool_started(self, turn: Turn, call: ToolCall) -> None:
        """A call is about to run: should the server die now, it is known to have been in flight.

        Raises QuotaExceeded.
        """
        quotas, caller = self.services.quotas, self.begun.caller
        async with quotas.telling(), self.services.database.tenant(caller.tenant) as tx:
            await self._locked_session(tx)
            await quotas.reserve(tx, caller, Amounts(tool_calls=1))
            await self._append(tx, events.tool_call_started(turn.id, call))
            # Counted before it runs: a call that is cut, or whose server dies, was made.
            await self._count(tx, turn, turn.step, Usage(tool_calls=1))
            await tool_call_store.start_tool_call(tx, self._organization_id, turn, turn.step, call)
            await self._audit(tx, turn, "tool.call", tool=call.tool, call_id=call.call_id)

    async def tool_finished(self, turn: Turn, finished: ToolCallFinished) -> None:
        """A call's result is durable: it is never asked for again."""
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            await self._append(tx, events.tool_call_finished(turn.id, finished.result, finished.duration))
            await tool_call_store.finish_tool_call(tx, self._organization_id, turn, turn.step, finished.result)
            await self._audit(
                tx,
                turn,
                "tool.result",
                Outcome.DENIED if finished.denied else Outcome.ALLOWED,
                tool=finished.result.tool,
                call_id=finished.result.call_id,
                error=finished.result.is_error,
            )

    async def tools_completed(self, turn: Turn, results: Sequence[ToolResult], used: Usage) -> None:
        """The results become the tool message, and the next step begins."""
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            await self._locked_session(tx)
            parts: tuple[Part, ...] = tuple(results)
            message = await store_messages.append_message(
                tx,
                self._organization_id,
                Message(turn.session_id, 0, turn.id, MessageRole.TOOL, parts, turn.created_at),
            )
            await self._append(tx, events.message_added(message))
            await self._count(tx, turn, turn.step + 1, used)
            await self._audit(tx, turn, "turn.tools", calls=len(results))

    async def ask(self, turn: Turn, calls: Sequence[ToolCall], used: Usage) -> None:
        """Permission is asked for, and the worker let go: the item is suspended until every request is answered.

        A turn that was stopped meanwhile ends instead.
        """
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            session = await self._locked_session(tx)
            stopped = await self._stopped(tx, session, turn)
            if stopped is not None:
                await self._end(tx, session, turn, stopped, used=used)
                return
            await self._count(tx, turn, turn.step, used)
            await self._wait(tx, session, turn, calls)
            await self._audit(tx, turn, "permission.request", tools=[call.tool for call in calls])

    async def ask_about(
        self,
        turn: Turn,
        breach: Breach,
        before: Sequence[NewEvent],
        used: Usage,
        reservation: Reservation | None,
    ) -> None:
        """The turn waits at a limit, as it waits for a tool's permission; `used` is what the cut step has used.

        A turn that was stopped meanwhile ends instead.
        """
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            session = await self._locked_session(tx)
            stopped = await self._stopped(tx, session, turn)
            if stopped is not None:
                await self._end(tx, session, turn, stopped, before, None, used)
                await self._settle(tx, used, reservation)
                return
            await self._count(tx, turn, turn.step, used)
            await self._settle(tx, used, reservation)
            await self._wait(tx, session, turn, [breach], before)
            await self._audit(tx, turn, "permission.request", limit=breach.limit, limit_value=breach.limit_value)

    async def _wait(
        self,
        tx: Transaction,
        session: Session,
        turn: Turn,
        asks: Sequence[ToolCall] | Sequence[Breach],
        before: Sequence[NewEvent] = (),
    ) -> None:
        """The turn waits until every request is answered, and its worker is free."""
        settings = self.begun.session.spec.permissions
        requests = [
            await permission_store.insert(tx, self._organization_id, session, turn, each, settings) for each in asks
        ]
        await announce(tx, self.services.queue, self.begun.caller, requests)
        state = transition(turn_name(session.id, turn.id), session.state, SessionState.AWAITING_PERMISSION)
        await store.set_state(tx, self._organization_id, session.id, state, current_turn_id=turn.id)
        await turn_store.suspend_turn(tx, self._organization_id, turn.id)
        await self._append(
            tx,
            *before,
            *(events.permission_requested(request) for request in requests),
            events.session_state_changed(session.state, state, "", turn_id=turn.id),
        )
        await self.services.queue.complete(tx, self.run, Suspended())

    async def finish(
        self,
        turn: Turn,
        ending: Ending,
        before: Sequence[NewEvent],
        partial: Partial,
        used: Usage,
        reservation: Reservation | None,
    ) -> None:
        """The turn ends otherwise than by an answer; what it brought is kept."""
        async with self.services.database.tenant(self.begun.caller.tenant) as tx:
            session = await self._locked_session(tx)
            await self._end(tx, session, turn, ending, before, partial, used)
            await self._settle(tx, used, reservation)

    async def asked_ending(self, turn: Turn) -> Ending:
        """How whoever stopped the turn wants it to end."""
        async with self.services.database.tenant(self.begun.caller.tenant, read=True) as tx:
            return await self._asked(tx, turn)

    async def _asked(self, tx: Transaction, turn: Turn) -> Ending:
        return await asked_ending(tx, self._organization_id, turn.id) or Ending(TurnState.CANCELLED)

    async def _stopped(self, tx: Transaction, session: Session, turn: Turn) -> Ending | None:
        """How a turn is to end that was stopped, with its session or alone; None: it goes on."""
        is_over = session.state is not SessionState.PROCESSING or session.current_turn_id != turn.id
        asked = await asked_ending(tx, self._organization_id, turn.id)
        return asked or (Ending(TurnState.CANCELLED) if is_over else None)

    @property
    def _organization_id(self) -> UUID:
        return self.begun.caller.tenant.organization_id

    async def _locked_session(self, tx: Transaction) -> Session:
        return await store.lock_again(tx, self._organization_id, self.begun.session)

    async def _append(self, tx: Transaction, *appended: NewEvent) -> None:
        await self.services.log.append(
            tx, self._organization_id, self.begun.session.id, appended, fence=self.run.lease_token
        )

    async def _count(self, tx: Transaction, turn: Turn, step: int, used: Usage) -> None:
        await turn_store.next_step(tx, self._organization_id, turn.id, step, used)
        await store.add_usage(tx, self._organization_id, turn.session_id, used)

    async def _settle(self, tx: Transaction, used: Usage, reservation: Reservation | None) -> None:
        """Pay for a model call."""
        if reservation is not None:
            await self.services.quotas.settle(tx, reservation, _amounts(used))

    async def _end(
        self,
        tx: Transaction,
        session: Session,
        turn: Turn,
        ending: Ending,
        before: Sequence[NewEvent] = (),
        partial: Partial | None = None,
        used: Usage = NOTHING,
    ) -> None:
        await end_turn(
            tx,
            self.services,
            self.begun.caller,
            session,
            turn,
            ending,
            before=before,
            partial=partial,
            used=used,
            fence=self.run.lease_token,
        )
        await self.services.queue.complete(tx, self.run, Succeeded())

    async def _audit(
        self, tx: Transaction, turn: Turn, action: str, outcome: Outcome = Outcome.ALLOWED, **details: object
    ) -> UUID:
        return await self.services.audit.write(
            tx,
            self.begun.caller,
            AuditEntry(
                action=action,
                resource=turn_name(turn.session_id, turn.id),
                outcome=outcome,
                category=Category.BUSINESS,
                details=details,
            ),
        )


def _amounts(used: Usage) -> Amounts:
    """What the day's quotas count of a model call."""
    return Amounts(used.total_tokens, used.cost_micros)


def _answer(turn: Turn, answer: AnswerCompleted, partial: Partial, audit_event_id: UUID) -> Message:
    return Message(
        session_id=turn.session_id,
        number=0,
        turn_id=turn.id,
        role=MessageRole.ASSISTANT,
        parts=tuple(answer.parts),
        created_at=turn.created_at,
        provenance=Provenance(
            model=answer.model,
            usage=answer.usage,
            latency=answer.latency,
            first_token_latency=answer.first_token_latency,
            prompt_version=turn.prompt_version,
            prompt_variant=turn.prompt_variant,
            audit_event_id=audit_event_id,
        ),
        first_delta=partial.first_delta,
        last_delta=partial.last_delta,
    )
