"""Cycles among tasks: the RPCs refuse each edge that would close one; this proves that there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.embedder import Runner
from stationmaster_server.maintenance.base import BackgroundService, Operation, Options
from stationmaster_server.maintenance.model import Policy, Scope
from stationmaster_server.tasks import cycle_audit
from stationmaster_server.tasks.model import task_name

_MOST_TOLD = 100
_log = structlog.get_logger(__name__)


class DependencyCycles(BackgroundService[Options]):
    """Looks for cycles among the dependencies of all organizations."""

    service_id = "dependency-cycles"
    description = "Looks for cycles among the dependencies of tasks, of which there must be none."
    policy = Policy(timedelta(hours=6))
    scope = Scope.ONE_SERVER
    options = Options

    def __init__(self, database: Database, run: Runner) -> None:
        self._database = database
        self._run = run

    async def update(self) -> None:
        """Look at every organization; a cycle is an error, for whoever is in it waits for ever."""
        async with self._database.system(autocommit=True) as tx:
            organizations = await cycle_audit.organizations(tx)
        broken = []
        for organization_id in organizations:
            for cycle in await cycle_audit.cycles(self._database, self._run, organization_id):
                _log.error("tasks depend on each other in a cycle", organization=str(organization_id), tasks=cycle)
                broken.append(cycle)
        if broken:
            such_as = " -> ".join(broken[0])
            raise RuntimeError(f"{len(broken)} cycles among dependencies, such as {such_as}: remove an edge of each")

    def operations(self) -> tuple[Operation[Any], ...]:
        """The caller's organization, at once."""
        what = "Find every cycle among the dependencies of the organization's tasks."
        return (Operation("audit", what, Options, self._audit),)

    async def _audit(self, caller: Caller, _arguments: Options) -> Mapping[str, Any]:
        found = await cycle_audit.cycles(self._database, self._run, caller.tenant.organization_id)
        return {"count": len(found), "cycles": [[task_name(task) for task in cycle] for cycle in found[:_MOST_TOLD]]}
