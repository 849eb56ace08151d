"""Dependencies between tasks: added without cycles, listed, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, InvalidArgument, NotFound, Reason
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.tasks import dependency_store, levels, store
from stationmaster_server.tasks.graph import Verdict, cycle_refused, find_cycle, verdict
from stationmaster_server.tasks.model import MAX_DEPTH, Dependency, DependencyState, FailurePolicy, task_name
from stationmaster_server.tasks.service import require_owner, require_to_own
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import look_again, started_in_vain
from stationmaster_server.tasks.sync.changed import tell

MOST_LISTED = 10_000
_PATTERN = re.compile(r"[a-z0-9*-]{0,64}")


@dataclass(frozen=True, slots=True)
class _Removed:
    """What is remembered of a removal."""

    task_id: str
    depends_on: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a task could start now, and the cycle that a candidate would close."""

    ready: bool
    dependencies: Sequence[Dependency]
    cycle: Sequence[str]


class Dependencies:
    """Changes and reads the graph."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services

    async def add(
        self, caller: Caller, task_id: str, depends_on: str, on_failure: FailurePolicy, *, validate_only: bool = False
    ) -> Dependency:
        """Let a task wait for another one.

        Raises NotFound, AlreadyExists, PermissionDenied, FailedPrecondition(DEPENDENCY_CYCLE, DEPENDENCY_TOO_DEEP),
        InvalidArgument when it has variables that nobody could give.
        """
        tenant = caller.tenant
        organization_id = tenant.organization_id
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, None if validate_only else caller.request_key, Dependency)
            if again is not None:
                return again
            read = store.get if validate_only else dependency_store.lock_graph_and_share
            task = await read(tx, organization_id, task_id)
            require_to_own(caller, task_id, task.user_id)
            if why := started_in_vain(task):
                raise InvalidArgument.field("task", why)
            if validate_only:
                await store.owners(tx, organization_id, [depends_on])
                cycle = await find_cycle(tx, organization_id, task_id, depends_on)
                if cycle:
                    raise cycle_refused(cycle)
                tx.audited = True  # nothing is changed
                return await self._would_be(tx, caller, task_id, depends_on, on_failure)
            await levels.admit(tx, organization_id, task_id, depends_on)
            edge = await dependency_store.add(tx, organization_id, task_id, depends_on, on_failure)
            tell(tx, self._services.changed)
            dependency = edge.at(1)
            details = {"depends_on": task_name(depends_on), "on_failure": on_failure.value}
            await self._services.audit.write(
                tx, caller, AuditEntry("task.add_dependency", task_name(task_id), details=details)
            )
            await remember(tx, tenant, caller.request_key, dependency)
            return dependency

    async def remove(self, caller: Caller, task_id: str, depends_on: str) -> None:
        """Take one away; executions that wait for it are looked at again. Raises NotFound, PermissionDenied.

        The owner of the task depended on may, too: a dependency of somebody else's keeps that task from being deleted.
        """
        tenant = caller.tenant
        organization_id = tenant.organization_id
        async with self._services.database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Removed) is not None:
                return
            await dependency_store.lock_graph(tx, organization_id)
            task = await store.lock(tx, organization_id, task_id)
            if (await store.get(tx, organization_id, depends_on)).user_id != tenant.user_id:
                require_owner(caller, task)
            await dependency_store.delete(tx, organization_id, task_id, depends_on)
            await levels.settle(tx, organization_id, task_id)
            tell(tx, self._services.changed)
            await look_again(tx, self._services, caller, task_id)
            details = {"depends_on": task_name(depends_on)}
            await self._services.audit.write(
                tx, caller, AuditEntry("task.remove_dependency", task_name(task_id), details=details)
            )
            await remember(tx, tenant, caller.request_key, _Removed(task_id, depends_on))

    async def list(
        self, caller: Caller, task_id: str, pattern: str, *, up: bool, max_depth: int, page: PageRequest
    ) -> Page[Dependency]:
        """What a task depends on, or what depends on it, of ids that fit a pattern. Raises NotFound."""
        if not _PATTERN.fullmatch(pattern):
            why = f"{pattern!r} is no id of a task and no pattern with *"
            raise InvalidArgument.field("filter", why, Reason.INVALID_FILTER)
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            await store.get(tx, caller.tenant.organization_id, task_id)
            found = await self._reach(tx, caller, task_id, up=up, max_depth=max_depth or 1)
        if pattern:
            found = [one for one in found if fnmatchcase(one.depends_on if up else one.task_id, pattern)]
        return _page(found, page)

    async def check(self, caller: Caller, task_id: str, candidate: str = "") -> Checked:
        """Whether a task could start now, and whether `candidate` could be added. Raises NotFound."""
        organization_id = caller.tenant.organization_id
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            await store.get(tx, organization_id, task_id)
            edges = await dependency_store.upstream(tx, organization_id, [task_id])
            cycle: list[str] = []
            if candidate:
                await store.get(tx, organization_id, candidate)
                cycle = await find_cycle(tx, organization_id, task_id, candidate)
        own = [edge.at(1) for edge in edges[:1000]]
        return Checked(verdict(edges) is Verdict.RUN, own, cycle)

    async def _would_be(
        self, tx: Transaction, caller: Caller, task_id: str, depends_on: str, on_failure: FailurePolicy
    ) -> Dependency:
        edges = await dependency_store.upstream(tx, caller.tenant.organization_id, [task_id])
        if any(edge.depends_on == depends_on for edge in edges):
            raise AlreadyExists("TaskDependency", f"{task_name(task_id)} on {task_name(depends_on)}")
        return Dependency(task_id, depends_on, on_failure, 1, DependencyState.PENDING, datetime.now(UTC))

    async def _one(self, tx: Transaction, caller: Caller, task_id: str, depends_on: str) -> Dependency:
        edge = await dependency_store.get(tx, caller.tenant.organization_id, task_id, depends_on)
        if edge is None:
            raise NotFound("TaskDependency", f"{task_name(task_id)} on {task_name(depends_on)}")
        return edge.at(1)

    async def _reach(
        self, tx: Transaction, caller: Caller, task_id: str, *, up: bool, max_depth: int
    ) -> Sequence[Dependency]:
        """Every edge that can be reached, at its shortest distance, up to a bound."""
        read = dependency_store.upstream if up else dependency_store.downstream
        level, found, seen = [task_id], dict[tuple[str, str], Dependency](), {task_id}
        for depth in range(1, min(max_depth, MAX_DEPTH) + 1):
            edges = await read(tx, caller.tenant.organization_id, level)
            for edge in edges:
                found.setdefault((edge.task_id, edge.depends_on), edge.at(depth))
            far = {edge.depends_on if up else edge.task_id for edge in edges} - seen
            if not far or len(found) > MOST_LISTED:
                break
            seen |= far
            level = sorted(far)
        return sorted(found.values(), key=lambda one: (one.depth, one.task_id, one.depends_on))


def _page(found: Sequence[Dependency], page: PageRequest) -> Page[Dependency]:
    keys = [(one.depth, one.task_id, one.depends_on) for one in found]
    start = 0
    if page.after is not None:
        match page.after:
            case (int() as depth, str() as task_id, str() as depends_on):
                after = (depth, task_id, depends_on)
            case _:
                raise InvalidArgument.field("page_token", "is of another list", Reason.PAGE_TOKEN_INVALID)
        start = sum(key <= after for key in keys)
    items, cursors = list(found)[start : start + page.size], keys[start : start + page.size]
    return Page(items, cursors[-1] if start + page.size < len(found) else None, cursors)
