"""The tasks' part, built: the service, the runners of executions, and what follows their ends."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.app.engines import Engines
from stationmaster_server.app.housekeeping import Chore, Housekeeping
from stationmaster_server.app.sessions import Sessions
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import Settings
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.tasks.crawl.journal import forget_old
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.tasks.firing import Firing
from stationmaster_server.tasks.follow_up import FollowUp
from stationmaster_server.tasks.kinds.crawl import CrawlKind, extract_in
from stationmaster_server.tasks.kinds.prompt import PromptKind
from stationmaster_server.tasks.kinds.registry import Kinds, installed
from stationmaster_server.tasks.model import work_kind
from stationmaster_server.tasks.runner import ExecutionRunner
from stationmaster_server.tasks.servicer import TaskServicer
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.templating.templates import Templates
from stationmaster_server.wire.paging import PageTokens
from stationmaster_server.work.run import Handler


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks' servicer, and the handlers of the work that it submits."""

    servicer: TaskServicer
    handlers: dict[str, Handler]


def build_tasks(
    stack: AsyncExitStack,
    database: Database,
    gate: Gate,
    engines: Engines,
    sessions: Sessions,
    tokens: PageTokens,
    pools: Pools,
    chores: Housekeeping,
    outbound: Outbound,
    settings: Settings,
) -> Tasks:
    """Build everything about tasks and executions."""
    extractor = extract_in(pools, max(1, settings.pools.processes - 1))
    crawl = CrawlKind(database, outbound, extractor, settings.crawl)
    kinds = Kinds([PromptKind(sessions.service, sessions.turns, sessions.watching), crawl, *installed()])
    services = TaskServices(
        database, engines.log, engines.queue, gate.audit, kinds, Filling(kinds, Templates(pools.cpu))
    )
    follow_up = FollowUp(services, sessions.service.end)
    follow_up.start()
    stack.push_async_callback(follow_up.close)
    chores.add(Chore("forget old crawls", timedelta(hours=1), lambda: forget_old(database, settings.crawl.keep_pages)))
    chores.add(Chore("fire schedules", timedelta(seconds=1), Firing(services).fire_due))
    handlers: dict[str, Handler] = {
        work_kind(name): ExecutionRunner(services, kinds.get(name), follow_up) for name in kinds
    }
    return Tasks(TaskServicer(services, tokens), handlers)
