"""The tasks' part, built: the service, the runners of executions, and what follows their ends."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.app.ground import Ground
from stationmaster_server.app.housekeeping import Chore
from stationmaster_server.app.sessions import Sessions
from stationmaster_server.app.storage import Storage
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks import reporting
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
from stationmaster_server.work.run import Handler


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks' servicer, and the handlers of the work that it submits."""

    servicer: TaskServicer
    handlers: dict[str, Handler]


def build_tasks(stack: AsyncExitStack, on: Ground, sessions: Sessions, storage: Storage, outbound: Outbound) -> Tasks:
    """Build everything about tasks and executions."""
    database, engines, crawler = on.database, on.engines, on.settings.crawl
    extractor = extract_in(on.pools, max(1, on.settings.pools.processes - 1))
    kinds = Kinds(
        [
            PromptKind(sessions.service, sessions.turns, sessions.watching),
            CrawlKind(database, outbound, extractor, crawler),
            *installed(),
        ]
    )
    filling = Filling(kinds, Templates(on.pools.cpu))
    services = TaskServices(database, engines.log, engines.queue, on.gate.audit, kinds, filling, sessions.service.end)
    follow_up = FollowUp(services)
    follow_up.start()
    stack.push_async_callback(follow_up.close)
    on.chores.add(Chore("forget old crawls", timedelta(hours=1), lambda: forget_old(database, crawler.keep_pages)))
    _fire_schedules(on, services)
    runners: dict[str, Handler] = {
        work_kind(name): ExecutionRunner(services, kinds.get(name), follow_up) for name in kinds
    }
    reports = {reporting.KIND: reporting.Reporting(services, storage.reports, on.pools)}
    return Tasks(TaskServicer(services, on.tokens), runners | reports)


def _fire_schedules(on: Ground, services: TaskServices) -> None:
    firing = Firing(services)
    on.chores.add(Chore("fire schedules", timedelta(seconds=1), firing.fire_due))
    text = "Times that schedules were due which this server fired or skipped, and tasks that it had to put off."
    on.metrics.read("schedules_due", text, lambda: firing.outcomes, label="outcome", total=True)
    lag = "How late the last schedule was fired here."
    on.metrics.read("schedule_lag_seconds", lag, lambda: firing.lag.total_seconds())
