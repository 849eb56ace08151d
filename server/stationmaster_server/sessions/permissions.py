"""Permission requests: how they are answered, once, and what happens to those that nobody answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stationmaster_server.agents.model import OnPermissionTimeout
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, PreconditionViolation, Reason
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.model import AuditEntry, Category, Outcome
from stationmaster_server.identity.system import system_caller
from stationmaster_server.sessions import events, grant_store, permission_store, store, turn_store
from stationmaster_server.sessions.model import (
    Breach,
    Ending,
    PermissionDecision,
    PermissionRequest,
    PermissionState,
    Session,
    SessionState,
    TurnState,
    owner_scope,
    permission_name,
    transition,
)
from stationmaster_server.sessions.turn_ending import end_turn
from stationmaster_server.sessions.turn_services import TurnServices

logger = logging.getLogger(__name__)

NOBODY_ANSWERED = "Nobody answered the permission request in time."


@dataclass(frozen=True, slots=True)
class Answer:
    """How somebody answers. `edited_arguments` go with ALLOW_ONCE, `message` with DENY."""

    decision: PermissionDecision
    message: str = ""
    edited_arguments: dict[str, Any] | None = None


class Permissions:
    """Answers permission requests; each answer is one transaction that also sends the turn on its way."""

    def __init__(self, services: TurnServices) -> None:
        self._services = services

    async def list_requests(
        self, caller: Caller, session_id: UUID | None, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[PermissionRequest]:
        """A page of the requests of a session, or of all sessions that the caller may see. Raises NotFound."""
        organization_id, owner = caller.tenant.organization_id, owner_scope(caller)
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            if session_id is not None:
                await store.get_session(tx, organization_id, session_id, owner)
            return await permission_store.list_requests(
                tx, organization_id, session_id, owner, filter_text, order_by, page
            )

    async def resolve(self, caller: Caller, session_id: UUID, request_id: UUID, answer: Answer) -> PermissionRequest:
        """Answer a request. Raises NotFound, InvalidArgument, FailedPrecondition(PERMISSION_ALREADY_RESOLVED)."""
        _check(answer)
        async with self._services.database.tenant(caller.tenant) as tx:
            again = await recall(tx, caller.tenant, caller.request_key, PermissionRequest)
            if again is not None:
                return again
            organization_id = caller.tenant.organization_id
            session = await store.lock_session(tx, organization_id, session_id, owner_scope(caller))
            request = await permission_store.get(tx, organization_id, session_id, request_id)
            resolved = await self._answer(tx, caller, session, request, answer)
            await remember(tx, caller.tenant, caller.request_key, resolved)
            return resolved

    async def expire_due(self) -> int:
        """End the requests whose deadline has passed; returns how many. Safe on every server at once."""
        async with self._services.database.system(autocommit=True) as tx:
            due = await permission_store.due(tx, 100)
        ended = 0
        for organization_id, user_id, request in due:
            caller = system_caller(organization_id, user_id, request_id=f"permission-{request.id}")
            try:
                async with self._services.database.tenant(caller.tenant) as tx:
                    session = await store.lock_session(tx, organization_id, request.session_id, None)
                    await self._expire(tx, caller, session, request)
                ended += 1
            except Exception:
                # One that cannot be ended must not hold up the others.
                logger.exception("permission request %s could not be ended at its deadline", request.id)
        return ended

    async def _answer(
        self, tx: Transaction, caller: Caller, session: Session, request: PermissionRequest, answer: Answer
    ) -> PermissionRequest:
        _check_about(request, answer)
        organization_id = caller.tenant.organization_id
        denied = answer.decision is PermissionDecision.DENY
        state = PermissionState.DENIED if denied else PermissionState.ALLOWED
        resolved = await permission_store.resolve(
            tx,
            organization_id,
            request.id,
            state,
            answer.decision,
            message=answer.message,
            edited_arguments=answer.edited_arguments,
            resolved_by=caller.tenant.user_id,
        )
        if resolved is None:
            raise _answered_before(await permission_store.get(tx, organization_id, session.id, request.id))
        appended = [events.permission_resolved(resolved)]
        if answer.decision is PermissionDecision.ALLOW_FOR_SESSION:
            await grant_store.grant_tool(tx, organization_id, session.id, request.call.tool)
            appended += await self._allow_the_same(tx, caller, resolved)
        await self._audit(tx, caller, resolved, Outcome.DENIED if denied else Outcome.ALLOWED)
        if resolved.breach is not None and denied:
            await self._end_limited(tx, caller, session, resolved, resolved.breach, appended)
            return resolved
        if resolved.breach is not None:
            await _grant(tx, organization_id, resolved, resolved.breach)
        await self._go_on(tx, caller, session, resolved, appended)
        return resolved

    async def _end_limited(
        self,
        tx: Transaction,
        caller: Caller,
        session: Session,
        request: PermissionRequest,
        breach: Breach,
        appended: list[NewEvent],
    ) -> None:
        """Nobody lets the turn go on: it ends at its limit."""
        organization_id = caller.tenant.organization_id
        turn = await turn_store.get_turn(tx, organization_id, session.id, request.turn_id)
        ending = Ending(TurnState.LIMITED, breach.reason, str(breach))
        appended.append(events.limit_reached(turn.id, breach))
        await end_turn(tx, self._services, caller, session, turn, ending, before=appended)
        await self._services.queue.cancel(tx, organization_id, turn.id)

    async def _allow_the_same(self, tx: Transaction, caller: Caller, resolved: PermissionRequest) -> list[NewEvent]:
        """Other calls of the turn that wait for the same tool are answered by the same word."""
        organization_id = caller.tenant.organization_id
        appended = []
        for other in await permission_store.waiting(tx, organization_id, resolved.turn_id):
            if other.call.tool == resolved.call.tool:
                allowed = await permission_store.resolve(
                    tx,
                    organization_id,
                    other.id,
                    PermissionState.ALLOWED,
                    PermissionDecision.ALLOW_FOR_SESSION,
                    resolved_by=caller.tenant.user_id,
                )
                if allowed is not None:
                    appended.append(events.permission_resolved(allowed))
        return appended

    async def _go_on(
        self,
        tx: Transaction,
        caller: Caller,
        session: Session,
        resolved: PermissionRequest,
        appended: list[NewEvent],
    ) -> None:
        """With the last answer the turn goes back into the queue, for any server to take up."""
        organization_id = caller.tenant.organization_id
        if not await permission_store.waiting(tx, organization_id, resolved.turn_id):
            name = permission_name(session.id, resolved.id)
            state = transition(name, session.state, SessionState.PROCESSING)
            await store.set_state(tx, organization_id, session.id, state, current_turn_id=resolved.turn_id)
            appended.append(events.session_state_changed(session.state, state, "", turn_id=resolved.turn_id))
            await self._services.queue.resume(tx, organization_id, resolved.turn_id)
        await self._services.log.append(tx, organization_id, session.id, appended)

    async def _expire(self, tx: Transaction, caller: Caller, session: Session, request: PermissionRequest) -> None:
        organization_id = caller.tenant.organization_id
        expired = await permission_store.resolve(
            tx, organization_id, request.id, PermissionState.EXPIRED, None, message=NOBODY_ANSWERED
        )
        if expired is None:
            tx.audited = True  # somebody else's transaction told of it
            return
        await self._audit(tx, caller, expired, Outcome.DENIED)
        appended = [events.permission_resolved(expired)]
        if request.breach is not None and request.on_timeout is OnPermissionTimeout.DENY:
            await self._end_limited(tx, caller, session, expired, request.breach, appended)
            return
        if request.on_timeout is not OnPermissionTimeout.PAUSE:
            await self._go_on(tx, caller, session, expired, appended)
            return
        turn = await turn_store.get_turn(tx, organization_id, session.id, request.turn_id)
        paused = transition(permission_name(session.id, request.id), session.state, SessionState.PAUSED)
        await store.set_state(
            tx, organization_id, session.id, paused, reason=NOBODY_ANSWERED, current_turn_id=session.current_turn_id
        )
        appended.append(events.session_state_changed(session.state, paused, NOBODY_ANSWERED, turn_id=turn.id))
        session = await store.get_session(tx, organization_id, session.id, None)
        await end_turn(
            tx, self._services, caller, session, turn, Ending(TurnState.CANCELLED, NOBODY_ANSWERED), before=appended
        )
        await self._services.queue.cancel(tx, organization_id, turn.id)

    async def _audit(self, tx: Transaction, caller: Caller, request: PermissionRequest, outcome: Outcome) -> None:
        entry = AuditEntry(
            action="permission.resolve",
            resource=permission_name(request.session_id, request.id),
            outcome=outcome,
            category=Category.SECURITY,
            details={
                **({"tool": request.call.tool} if request.breach is None else {"limit": request.breach.limit}),
                "state": str(request.state),
                "decision": str(request.decision or ""),
                "edited": request.edited_arguments is not None,
            },
        )
        await self._services.audit.write(tx, caller, entry)


def _check(answer: Answer) -> None:
    if answer.edited_arguments is not None and answer.decision is not PermissionDecision.ALLOW_ONCE:
        raise InvalidArgument.field("edited_arguments", "go with ALLOW_ONCE only")
    if answer.message and answer.decision is not PermissionDecision.DENY:
        raise InvalidArgument.field("message", "goes with DENY only")


def _check_about(request: PermissionRequest, answer: Answer) -> None:
    """Whether it is an answer to this request."""
    if request.breach is None:
        return
    if answer.decision is PermissionDecision.ALLOW_FOR_SESSION:
        why = f"{request.breach.limit} is a limit: it is raised with the session's or the agent's limits, or once"
        raise InvalidArgument.field("decision", why)
    if answer.edited_arguments is not None:
        raise InvalidArgument.field("edited_arguments", "go with a call, and this request is about a limit")


async def _grant(tx: Transaction, organization_id: UUID, request: PermissionRequest, breach: Breach) -> None:
    """As much as the limit is, once more. A quota stays as it is: the turn tries again."""
    if breach.of_quota:
        return
    if breach.of_session:
        await grant_store.grant_session_portion(tx, organization_id, request.session_id, breach.limit)
    else:
        await grant_store.grant_turn_portion(tx, organization_id, request.turn_id, breach.limit)


def _answered_before(request: PermissionRequest) -> FailedPrecondition:
    name = permission_name(request.session_id, request.id)
    return FailedPrecondition(
        Reason.PERMISSION_ALREADY_RESOLVED,
        f"{name} is {request.state} already: the first answer stands",
        PreconditionViolation(
            "PERMISSION_STATE", name, f"only a PENDING request can be answered; it is {request.state}"
        ),
    )
