"""The twin of GetSession and CreateSession: the same messages and commits in the plain way, with an ORM and its pool.

It does less than ours: no authentication, no validation, no row-level security, no request ids, and its quota has no
limit to keep.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any, NoReturn

import grpc
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from stationmaster.v1 import session_pb2 as pb

from benchmarks.floors.server import Context, serve
from benchmarks.twins.tables import AuditEvent, Base, Event, Session, SessionCount, User

Sessions = async_sessionmaker[AsyncSession]


class Twin:
    """Two methods of SessionService."""

    def __init__(self, sessions: Sessions, user: User) -> None:
        self._sessions = sessions
        self._user = user

    async def get(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        """Read a row."""
        async with self._sessions() as orm:
            found = await orm.get(Session, uuid.UUID(request.name.removeprefix("sessions/")))
        if found is None or found.organization_id != self._user.organization_id:
            await _not_found(context, request.name)
        return _message(found)

    async def create(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        """Write the session, its share of the quota, its audit event and its first event; commit."""
        asked, home = request.session, self._user.organization_id
        made = Session(
            id=uuid.uuid4(),
            organization_id=home,
            user_id=self._user.id,
            display_name=asked.display_name,
            model=asked.spec.model,
            labels=dict(asked.labels),
        )
        async with self._sessions.begin() as orm:
            orm.add(made)
            orm.add(SessionCount(session_id=made.id, user_id=self._user.id))
            orm.add(AuditEvent(organization_id=home, action="session.create", resource=f"sessions/{made.id}"))
            orm.add(Event(session_id=made.id, sequence=1, kind="session_created"))
        return _message(made)


def _message(found: Session) -> pb.Session:
    message = pb.Session(
        name=f"sessions/{found.id}",
        display_name=found.display_name,
        state=pb.SessionState.Value(f"SESSION_STATE_{found.state}"),
        labels=found.labels,
        user=f"users/{found.user_id}",
        workspace=f"workspaces/{found.id}",
        last_sequence=1,
    )
    message.spec.model = found.model
    message.create_time.FromDatetime(found.created_at)
    message.update_time.FromDatetime(found.updated_at)
    return message


async def _not_found(context: Context, name: str) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, f"{name} was not found")


async def _prepare(server: grpc.aio.Server) -> None:
    engine = create_async_engine(sys.argv[2], pool_size=20, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions.begin() as orm:
        user = User()
        orm.add(user)
    twin = Twin(sessions, user)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetSession": grpc.unary_unary_rpc_method_handler(
            twin.get, pb.GetSessionRequest.FromString, pb.Session.SerializeToString
        ),
        "CreateSession": grpc.unary_unary_rpc_method_handler(
            twin.create, pb.CreateSessionRequest.FromString, pb.Session.SerializeToString
        ),
    }
    server.add_registered_method_handlers("stationmaster.v1.SessionService", handlers)


if __name__ == "__main__":
    serve(int(sys.argv[1]), _prepare)
