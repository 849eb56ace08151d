"""Sessions: how they come to be, change, fork and end; their messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.credentials.rights import require_naming
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    PreconditionViolation,
    Reason,
    require_etag,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.sessions import events, store, store_messages
from stationmaster_server.sessions.model import (
    ENDED,
    Message,
    NewSession,
    Session,
    SessionState,
    illegal_transition,
    owner_scope,
    session_name,
    transition,
)
from stationmaster_server.sessions.opening import fork_point, forked, opened, with_variables
from stationmaster_server.sessions.turn_services import First, TurnServices
from stationmaster_server.sessions.turns import Turns
from stationmaster_server.sessions.workspaces import Workspaces

STOPS_TURNS = frozenset({SessionState.PAUSED, SessionState.TERMINATED})


class Agents(Protocol):
    """What sessions need of agents; `agents.service.AgentService` is the one there is."""

    async def resolve(self, tx: Transaction, organization_id: UUID, agent_id: str) -> AgentSpec:
        """The specification of an agent as it is now. Raises NotFound, FailedPrecondition."""
        ...

    def check(self, spec: AgentSpec) -> None:
        """Whether this server can run it. Raises FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE)."""
        ...

    async def check_prompt(self, tx: Transaction, organization_id: UUID, spec: AgentSpec) -> None:
        """Whether the prompt that is named is there. Raises InvalidArgument, FailedPrecondition(PROMPT_MISSING)."""
        ...

    async def check_servers(self, tx: Transaction, tenant: Tenant, spec: AgentSpec) -> None:
        """Whether the tenant has the MCP servers that are named. Raises FailedPrecondition(RUNTIME_UNAVAILABLE)."""
        ...


class SessionService:
    """The rules of sessions. Every change is one transaction with its event and its audit row."""

    def __init__(
        self,
        services: TurnServices,
        turns: Turns,
        agents: Agents,
        workspaces: Workspaces,
        close_executors: Callable[[UUID], Awaitable[None]],
    ) -> None:
        self._services = services
        self._turns = turns
        self._agents = agents
        self._workspaces = workspaces
        self._close_executors = close_executors

    async def create(self, caller: Caller, new: NewSession, *, first: First | None = None) -> Session:
        """Create a session with its workspace: all or nothing.

        Raises NotFound (the agent), PermissionDenied, FailedPrecondition, ResourceExhausted(QUOTA_EXCEEDED).
        """
        session_id = new_id()

        async def build(tx: Transaction) -> Session:
            if first is not None:
                await first(tx, session_id)
            if new.spec is not None:
                require_naming(caller, new.spec.credential)
                self._agents.check(new.spec)
                await self._agents.check_servers(tx, caller.tenant, new.spec)
                await self._agents.check_prompt(tx, caller.tenant.organization_id, new.spec)
            spec = new.spec or await self._agents.resolve(tx, caller.tenant.organization_id, new.agent_id)
            return opened(session_id, caller.tenant.user_id, new, with_variables(spec, new.prompt_variables))

        return await self._open(caller, session_id, build)

    async def fork(
        self, caller: Caller, session_id: UUID, *, up_to: int | None = None, display_name: str = ""
    ) -> Session:
        """Make a session of the caller from another's messages up to a number (None: all) and its specification.

        Permissions that were granted for the session are not taken over. Raises NotFound (also of the message),
        InvalidArgument, ResourceExhausted(QUOTA_EXCEEDED).
        """
        child_id = new_id()
        organization_id = caller.tenant.organization_id

        async def build(tx: Transaction) -> Session:
            parent = await store.get_session(tx, organization_id, session_id, owner_scope(caller))
            point = await fork_point(tx, organization_id, session_id, up_to)
            return forked(child_id, caller.tenant.user_id, parent, point, display_name)

        return await self._open(caller, child_id, build)

    async def get(self, caller: Caller, session_id: UUID) -> Session:
        """One session. Raises NotFound."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await store.get_session(tx, caller.tenant.organization_id, session_id, owner_scope(caller))

    async def list(
        self, caller: Caller, filter_text: str, order_by: str, page: PageRequest, *, archived: bool = False
    ) -> Page[Session]:
        """A page of the sessions that the caller sees. Raises InvalidArgument."""
        organization_id, owner = caller.tenant.organization_id, owner_scope(caller)
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await store.list_sessions(tx, organization_id, owner, filter_text, order_by, page, archived=archived)

    async def update(self, caller: Caller, session_id: UUID, changes: dict[str, Any], etag: str = "") -> Session:
        """Change fields, by their names in `Session`. A turn that runs goes on with what it started with.

        Raises NotFound, PermissionDenied(SCOPE_MISSING), Aborted(ETAG_MISMATCH), FailedPrecondition(SESSION_CLOSED
        and those of the specification).
        """
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant) as tx:
            again = await recall(tx, caller.tenant, caller.request_key, Session)
            if again is not None:
                return again
            if "spec" in changes:
                require_naming(caller, changes["spec"].credential)
                self._agents.check(changes["spec"])
            session = await store.lock_session(tx, organization_id, session_id, owner_scope(caller))
            _check_open(session)
            require_etag(session_name(session.id), session.etag, etag)
            if "spec" in changes:
                _check_credential(caller, session, changes["spec"].credential)
                await self._agents.check_servers(tx, Tenant(organization_id, session.user_id), changes["spec"])
                await self._agents.check_prompt(tx, organization_id, changes["spec"])
            session = await store.update_session(tx, organization_id, replace(session, **changes))
            stored = await self._services.log.append(tx, organization_id, session_id, [events.session_updated(changes)])
            await self._audit(tx, caller, session, "session.update", details={"paths": sorted(changes)})
            session = replace(session, last_sequence=stored[-1].sequence)
            await remember(tx, caller.tenant, caller.request_key, session)
            return session

    async def pause(self, caller: Caller, session_id: UUID, reason: str = "") -> Session:
        """Take no message until it is resumed; open turns are cancelled. Raises NotFound, FailedPrecondition."""
        return await self._become(caller, session_id, SessionState.PAUSED, "session.pause", reason)

    async def resume(self, caller: Caller, session_id: UUID) -> Session:
        """Take messages again. Raises NotFound, FailedPrecondition(ILLEGAL_TRANSITION)."""
        return await self._become(caller, session_id, SessionState.ACTIVE, "session.resume")

    async def terminate(self, caller: Caller, session_id: UUID, reason: str = "") -> Session:
        """End it for good; open turns are cancelled and its place in the quota is free. Raises as `pause`."""
        session = await self._become(caller, session_id, SessionState.TERMINATED, "session.terminate", reason)
        await self._close_executors(session_id)
        return session

    async def end(self, tx: Transaction, caller: Caller, session_id: UUID, reason: str) -> None:
        """Terminate a session, if it has not ended, in the caller's transaction."""
        session = await store.lock_session(tx, caller.tenant.organization_id, session_id, owner_scope(caller))
        if session.state not in ENDED:
            await self._change(tx, caller, session, SessionState.TERMINATED, "session.terminate", reason)

    async def stop_turn(self, tx: Transaction, caller: Caller, session_id: UUID, turn_id: UUID, reason: str) -> None:
        """Cancel a turn, if it has not ended, in the caller's transaction: the session goes on. Raises NotFound."""
        session = await store.lock_session(tx, caller.tenant.organization_id, session_id, owner_scope(caller))
        await self._turns.stop(tx, caller, session, turn_id, reason)

    async def archive(self, caller: Caller, session_id: UUID) -> Session:
        """Put a terminated session away. Raises NotFound, FailedPrecondition(ILLEGAL_TRANSITION)."""
        return await self._become(caller, session_id, SessionState.ARCHIVED, "session.archive")

    async def list_messages(
        self, caller: Caller, session_id: UUID, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Message]:
        """A page of a session's messages. Raises NotFound, InvalidArgument."""
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            await store.require_session(tx, organization_id, session_id, owner_scope(caller))
            return await store_messages.list_messages(tx, organization_id, session_id, filter_text, order_by, page)

    async def _open(
        self, caller: Caller, session_id: UUID, build: Callable[[Transaction], Awaitable[Session]]
    ) -> Session:
        """The workspace first, outside the transaction; it goes away with a transaction that fails."""
        with self._workspaces.allocated(session_id):
            async with self._services.quotas.telling(), self._services.database.tenant(caller.tenant) as tx:
                session = await recall(tx, caller.tenant, caller.request_key, Session)
                if session is None:
                    session = await self._insert(tx, caller, await build(tx))
                    await remember(tx, caller.tenant, caller.request_key, session)
        if session.id != session_id:
            self._workspaces.discard(session_id)
        return session

    async def _insert(self, tx: Transaction, caller: Caller, session: Session) -> Session:
        organization_id, parent = caller.tenant.organization_id, session.parent_session_id
        session = await store.insert_session(tx, organization_id, session, events.session_created(parent))
        if parent is not None:
            count = await store_messages.copy_messages(
                tx, organization_id, parent, session.id, session.parent_message or 0
            )
            session = replace(session, message_count=count)
        details = {"agent": session.agent_id, "model": session.spec.model}
        if parent is not None:
            details["parent"] = session_name(parent)
        await self._audit(tx, caller, session, "session.fork" if parent else "session.create", details=details)
        # Last: with a limit, others of the same user wait from here to the commit.
        await self._services.quotas.open_session(tx, caller)
        return session

    async def _become(
        self, caller: Caller, session_id: UUID, wanted: SessionState, action: str, reason: str = ""
    ) -> Session:
        organization_id, owner = caller.tenant.organization_id, owner_scope(caller)
        async with self._services.database.tenant(caller.tenant) as tx:
            again = await recall(tx, caller.tenant, caller.request_key, Session)
            if again is not None:
                return again
            session = await store.lock_session(tx, organization_id, session_id, owner)
            await self._change(tx, caller, session, wanted, action, reason)
            session = await store.get_session(tx, organization_id, session_id, owner)
            await remember(tx, caller.tenant, caller.request_key, session)
            return session

    async def _change(
        self, tx: Transaction, caller: Caller, session: Session, wanted: SessionState, action: str, reason: str
    ) -> None:
        """Change the state of a session whose row is locked, with all that follows."""
        organization_id = caller.tenant.organization_id
        _check_change(session, wanted)
        await change_state(tx, self._services, session, organization_id, wanted, reason)
        await self._audit(tx, caller, session, action, reason=reason, details={"from": str(session.state)})
        if wanted in STOPS_TURNS:
            stopped = replace(session, state=wanted, state_reason=reason)
            await self._turns.stop_all(tx, caller, stopped, "CANCEL", reason)
        if wanted is SessionState.TERMINATED:
            await self._services.quotas.close_session(tx, Tenant(organization_id, session.user_id))

    async def _audit(
        self,
        tx: Transaction,
        caller: Caller,
        session: Session,
        action: str,
        *,
        reason: str = "",
        details: dict[str, Any],
    ) -> None:
        owner = "" if session.user_id == caller.tenant.user_id else f"users/{session.user_id}"
        entry = AuditEntry(action, session_name(session.id), reason=reason, details=details, on_behalf_of=owner)
        await self._services.audit.write(tx, caller, entry)


async def change_state(
    tx: Transaction,
    services: TurnServices,
    session: Session,
    organization_id: UUID,
    wanted: SessionState,
    reason: str = "",
) -> None:
    """Write a state that `transition` allowed, and its event, of a session whose row is locked."""
    kept = session.state_reason if wanted is SessionState.ARCHIVED else reason
    await store.set_state(tx, organization_id, session.id, wanted, reason=kept, current_turn_id=session.current_turn_id)
    changed = events.session_state_changed(session.state, wanted, reason)
    await services.log.append(tx, organization_id, session.id, [changed])


def _check_credential(caller: Caller, session: Session, named: str) -> None:
    """A session uses credentials with the right of its user, who alone names them (ADR 122)."""
    if named and session.user_id != caller.tenant.user_id:
        raise PermissionDenied(
            Reason.ACCESS_NOT_GRANTED,
            f"{session_name(session.id)} uses {named} with the rights of users/{session.user_id}: that user alone names"
            " credentials there; leave spec.credential out, or start a session of your own",
        )


def _check_open(session: Session) -> None:
    if session.state in ENDED:
        name = session_name(session.id)
        raise FailedPrecondition(
            Reason.SESSION_CLOSED,
            f"{name} is {session.state}: it can be read and forked, not changed",
            PreconditionViolation("SESSION_STATE", name, "fork it to go on from it"),
        )


def _check_change(session: Session, wanted: SessionState) -> None:
    """What the table allows, but a busy session becomes ACTIVE only when its turn ends, never by a caller's word."""
    name = session_name(session.id)
    if wanted is SessionState.ACTIVE and session.state is not SessionState.PAUSED:
        raise illegal_transition(name, session.state, wanted)
    if wanted is SessionState.ACTIVE and session.current_turn_id is not None:
        raise FailedPrecondition(
            Reason.SESSION_BUSY,
            f"{name} is still stopping its turn",
            PreconditionViolation("SESSION_STATE", name, "try again in a moment: the turn is being stopped"),
        )
    transition(name, session.state, wanted)
