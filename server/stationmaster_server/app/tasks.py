"""The tasks' part, built: the service, the runners of executions, and what follows their ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stationmaster_server.agents.service import AgentService
from stationmaster_server.app.ground import Ground
from stationmaster_server.app.prompts import Prompts
from stationmaster_server.app.sessions import Sessions
from stationmaster_server.app.storage import WORKSPACES, Storage
from stationmaster_server.app.sync import build_sync
from stationmaster_server.credentials.using import Using
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.services.cycles import DependencyCycles
from stationmaster_server.maintenance.services.embedding import DocumentEmbedding, TaskEmbedding
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks import embeddings, reporting
from stationmaster_server.tasks.cleanup.forgetting import Tools, forget_ended
from stationmaster_server.tasks.crawl.journal import forget_old
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.tasks.firing import Firing
from stationmaster_server.tasks.follow_up import FollowUp
from stationmaster_server.tasks.kinds.base import Kind
from stationmaster_server.tasks.kinds.cleanup import CleanupKind
from stationmaster_server.tasks.kinds.crawl import CrawlKind, extract_in
from stationmaster_server.tasks.kinds.export import ExportKind
from stationmaster_server.tasks.kinds.plugins import installed
from stationmaster_server.tasks.kinds.process import ProcessKind
from stationmaster_server.tasks.kinds.prompt import PromptKind
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.kinds.webhook import WebhookKind
from stationmaster_server.tasks.model import work_kind
from stationmaster_server.tasks.process.library import Library, forget_unfinished
from stationmaster_server.tasks.process.renewing import Renewing
from stationmaster_server.tasks.process.sources import Sources
from stationmaster_server.tasks.runner import ExecutionRunner
from stationmaster_server.tasks.servicer import TaskServicer
from stationmaster_server.tasks.services import TaskServices, utc_now
from stationmaster_server.tasks.sync.refusals import Refusals
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces
from stationmaster_server.templating.templates import Templates
from stationmaster_server.work.run import Handler

KINDS = (PromptKind, CrawlKind, WebhookKind, ProcessKind, ExportKind, CleanupKind)
"""The kinds that every server knows, in the order in which they are told of."""
OURS = tuple(kind.name for kind in KINDS)
_PROMPTS_PER_SLOT = 2
"""Wait at most for their turns: enough that all slots have turns, and not so many that turns of others queue behind."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks' servicer, and the handlers of the work that it submits."""

    servicer: TaskServicer
    handlers: dict[str, Handler]


def build_tasks(
    stack: AsyncExitStack,
    on: Ground,
    sessions: Sessions,
    storage: Storage,
    prompts: Prompts,
    outbound: Outbound,
    using: Using,
    agents: AgentService,
) -> Tasks:
    """Build everything about tasks and executions."""
    database, engines, crawler = on.database, on.engines, on.settings.crawl
    embedder = on.embedder
    extractor = extract_in(on.pools, max(1, on.settings.pools.processes - 1))
    own = ExecutionWorkspaces(on.settings.data_folder / WORKSPACES / "executions")
    tools = Tools(database, on.gate.audit, on.pools, sessions.workspaces, own, storage.bucket)
    folders = sessions.workspaces if storage.bucket is None else None
    ours: list[Kind[Any]] = [
        _prompt_kind(on, sessions, prompts, agents),
        CrawlKind(database, outbound, extractor, crawler),
        WebhookKind(outbound, using),
        _process_kind(on, sessions, storage, embedder),
        ExportKind(database, folders, own, on.pools, on.settings.export),
        CleanupKind(tools, engines.log),
    ]
    kinds = Kinds([*ours, *installed(OURS)])
    filling = Filling(kinds, Templates(on.pools.cpu))
    refusals = Refusals()
    services = TaskServices(
        database,
        engines.log,
        engines.queue,
        on.gate.audit,
        kinds,
        filling,
        embedder,
        sessions.service,
        storage.reports,
        on.clock or utc_now,
        build_sync(stack, on, refusals),
        refusals,
    )
    follow_up = FollowUp(services)
    follow_up.start()
    stack.push_async_callback(follow_up.close)
    _look_after(on, services, tools)
    _fire_schedules(on, services)
    return Tasks(TaskServicer(services, on.tokens), _handlers(on, services, follow_up))


def _handlers(on: Ground, services: TaskServices, follow_up: FollowUp) -> dict[str, Handler]:
    """What runs the work of tasks."""
    kinds = services.kinds
    runners: dict[str, Handler] = {
        work_kind(name): ExecutionRunner(services, kinds.get(name), follow_up) for name in kinds
    }
    runners[reporting.KIND] = reporting.Reporting(services, on.pools)
    runners[embeddings.KIND] = embeddings.TaskEmbedding(services)
    return runners


def _look_after(on: Ground, services: TaskServices, tools: Tools) -> None:
    """What servers do in the background about tasks."""
    for routine in _routines(on, services, tools):
        on.background.add(routine)
    on.background.add(TaskEmbedding(services))
    on.background.add(DocumentEmbedding(Renewing(on.database, on.embedder), on.database))
    on.background.add(DependencyCycles(on.database, on.pools.cpu))


def _prompt_kind(on: Ground, sessions: Sessions, prompts: Prompts, agents: AgentService) -> PromptKind:
    at_once = _PROMPTS_PER_SLOT * on.settings.work.slots
    return PromptKind(
        sessions.service,
        sessions.turns,
        sessions.watching,
        prompts.rendering,
        agents.check,
        agents.find,
        at_once=at_once,
    )


def _process_kind(on: Ground, sessions: Sessions, storage: Storage, embedder: Embedder) -> ProcessKind:
    settings = on.settings.documents
    sources = Sources(
        on.database, on.pools, sessions.service, sessions.workspaces.path, storage.bucket, settings.max_bytes
    )
    return ProcessKind(sources, Library(on.database, on.gate.audit), embedder, on.pools, settings)


def _routines(on: Ground, services: TaskServices, tools: Tools) -> Iterator[Routine]:
    database, one, hour = on.database, Scope.ONE_SERVER, timedelta(hours=1)
    pages, executions = on.settings.crawl.keep_pages, on.settings.tasks.keep_executions
    what = "Forgets the pages of crawls that ended longer ago than `crawl.keep_pages`."
    yield Routine("crawl-cleanup", what, hour, lambda: forget_old(database, pages), scope=one)
    what = "Forgets executions that ended longer ago than `tasks.keep_executions`, with all that they left."
    yield Routine("execution-cleanup", what, hour, lambda: forget_ended(tools, executions), scope=one)
    what = "Forgets documents that nobody will finish."
    yield Routine("document-cleanup", what, hour, lambda: forget_unfinished(database), scope=one)


def _fire_schedules(on: Ground, services: TaskServices) -> None:
    firing = Firing(services, clock=on.clock)
    what = "Fires schedules that are due."
    on.background.add(Routine("schedule-firing", what, timedelta(seconds=1), firing.fire_due))
    text = "Times that schedules were due which this server fired or skipped, and tasks that it had to put off."
    on.metrics.read("schedules_due", text, lambda: firing.outcomes, label="outcome", total=True)
    lag = "How late the last schedule was fired here."
    on.metrics.read("schedule_lag_seconds", lag, lambda: firing.lag.total_seconds())
