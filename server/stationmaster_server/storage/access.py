"""Who may touch the files of which session."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, NotFound, PreconditionViolation, Reason
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.storage import file_store
from stationmaster_server.storage.file_model import Owner, workspace_name
from stationmaster_server.storage.places.place import Home


async def owner_within(tx: Transaction, caller: Caller, session_id: UUID, missing: NotFound) -> Owner:
    """Whose session it is, if the caller may touch its files. Raises `missing`."""
    owner = await file_store.owner_of(tx, caller.tenant.organization_id, owner_scope(caller), session_id)
    if owner is None:
        raise missing
    return owner


async def owner_of(database: Database, caller: Caller, session_id: UUID, missing: NotFound | None = None) -> Owner:
    """The same, in a transaction of its own. Raises NotFound."""
    async with database.tenant(caller.tenant, read=True) as tx:
        return await owner_within(tx, caller, session_id, missing or no_workspace(session_id))


def home_of(caller: Caller, session_id: UUID) -> Home:
    """Where the files of a session of the caller's organization are."""
    return Home(caller.tenant.organization_id, session_id)


def no_workspace(session_id: UUID) -> NotFound:
    """There is none, or it is somebody else's."""
    return NotFound("Workspace", workspace_name(session_id))


def require_open(owner: Owner, session_id: UUID) -> None:
    """Raises FailedPrecondition(SESSION_CLOSED) when the session has ended."""
    if owner.ended:
        name = f"sessions/{session_id}"
        raise FailedPrecondition(
            Reason.SESSION_CLOSED,
            f"{name} has ended: its files can be read and deleted, not added to",
            PreconditionViolation("SESSION_STATE", name, "use the workspace of another session"),
        )
