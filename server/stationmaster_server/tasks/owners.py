"""Whom an execution works for, as that user stands now."""

from __future__ import annotations

from dataclasses import replace

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import PermissionDenied, Reason
from stationmaster_server.identity.model import ROLE_SCOPES
from stationmaster_server.identity.store import get_user
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.model import Task, task_name


async def owner_of(database: Database, caller: Caller) -> Caller:
    """The owner of an execution as a caller: the role of now and all that it may. Raises PermissionDenied."""
    tenant = caller.tenant
    async with database.tenant(tenant, read=True) as tx:
        user = await get_user(tx, tenant.organization_id, tenant.user_id)
    if user is None or user.disabled_at is not None:
        raise disabled(caller)
    return replace(caller, role=user.role, scopes=ROLE_SCOPES[user.role])


def require_own_secrets(kinds: Kinds, caller: Caller, *tasks: Task) -> None:
    """Whose secrets a task sends, that user alone says what is sent, and where. Raises PermissionDenied.

    Administrators would read through it what they may not read (ADR 122).
    """
    for task in tasks:
        sends = task.secrets or kinds.sends_credentials(task.kind, task.payload)
        if sends and task.user_id != caller.tenant.user_id:
            raise PermissionDenied(
                Reason.ACCESS_NOT_GRANTED,
                f"{task_name(task.task_id)} sends secrets with the rights of users/{task.user_id}: that user alone"
                " changes its payload, and what its variables are; others may pause, reschedule or delete it",
            )


def disabled(caller: Caller) -> PermissionDenied:
    """The refusal to work for somebody who may do nothing more."""
    user = f"users/{caller.tenant.user_id}"
    return PermissionDenied(Reason.USER_DISABLED, f"{user} is disabled: nothing is done for it")
