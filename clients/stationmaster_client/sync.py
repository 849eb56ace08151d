"""`SyncClient`: the async client behind blocking calls.

There is no second implementation: each line below takes a method, with its types, and runs it in a private event loop.
"""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

from stationmaster_client.agents import Agents
from stationmaster_client.archives import Archives
from stationmaster_client.audit import Audit
from stationmaster_client.calls import DEFAULT_TIMEOUT
from stationmaster_client.channel import DEFAULT_ATTEMPTS
from stationmaster_client.client import Client
from stationmaster_client.connection import Connection, Tls, resolve
from stationmaster_client.credentials import Credentials
from stationmaster_client.executions import Executions
from stationmaster_client.experiments import Experiments
from stationmaster_client.face import Face, blocking, iterating
from stationmaster_client.files import Files
from stationmaster_client.health import Health
from stationmaster_client.identity import Keys, Organizations, Quotas, Users
from stationmaster_client.maintenance import Maintenance
from stationmaster_client.mcp import Mcp
from stationmaster_client.permissions import Permissions
from stationmaster_client.portal import Portal
from stationmaster_client.prompts import Prompts
from stationmaster_client.reports import Reports
from stationmaster_client.sessions import Sessions
from stationmaster_client.tasks import Tasks


class SyncSessions(Face[Sessions]):
    """See `Sessions`."""

    create = blocking(Sessions.create)
    get = blocking(Sessions.get)
    list = iterating(Sessions.list)
    update = blocking(Sessions.update)
    pause = blocking(Sessions.pause)
    resume = blocking(Sessions.resume)
    fork = blocking(Sessions.fork)
    terminate = blocking(Sessions.terminate)
    archive = blocking(Sessions.archive)
    watch = iterating(Sessions.watch)
    send = iterating(Sessions.send)
    ask = blocking(Sessions.ask)
    messages = iterating(Sessions.messages)
    search = iterating(Sessions.search)
    turn = blocking(Sessions.turn)
    turns = iterating(Sessions.turns)
    cancel = blocking(Sessions.cancel)


class SyncPermissions(Face[Permissions]):
    """See `Permissions`."""

    list = iterating(Permissions.list)
    allow = blocking(Permissions.allow)
    deny = blocking(Permissions.deny)


class SyncAgents(Face[Agents]):
    """See `Agents`."""

    create = blocking(Agents.create)
    get = blocking(Agents.get)
    list = iterating(Agents.list)
    update = blocking(Agents.update)
    delete = blocking(Agents.delete)
    models = iterating(Agents.models)


class SyncPrompts(Face[Prompts]):
    """See `Prompts`."""

    create = blocking(Prompts.create)
    get = blocking(Prompts.get)
    list = iterating(Prompts.list)
    update = blocking(Prompts.update)
    delete = blocking(Prompts.delete)
    versions = iterating(Prompts.versions)
    diff = blocking(Prompts.diff)
    label = blocking(Prompts.label)
    render = blocking(Prompts.render)
    select = blocking(Prompts.select)
    record = blocking(Prompts.record)
    analytics = blocking(Prompts.analytics)
    customize = blocking(Prompts.customize)
    customization = blocking(Prompts.customization)
    customizations = iterating(Prompts.customizations)
    recustomize = blocking(Prompts.recustomize)
    uncustomize = blocking(Prompts.uncustomize)


class SyncExperiments(Face[Experiments]):
    """See `Experiments`."""

    create = blocking(Experiments.create)
    get = blocking(Experiments.get)
    list = iterating(Experiments.list)
    start = blocking(Experiments.start)
    stop = blocking(Experiments.stop)
    conclude = blocking(Experiments.conclude)
    results = blocking(Experiments.results)


class SyncMcp(Face[Mcp]):
    """See `Mcp`."""

    register = blocking(Mcp.register)
    get = blocking(Mcp.get)
    list = iterating(Mcp.list)
    update = blocking(Mcp.update)
    delete = blocking(Mcp.delete)
    check = blocking(Mcp.check)
    open_session = blocking(Mcp.open_session)
    get_session = blocking(Mcp.get_session)
    sessions = iterating(Mcp.sessions)
    close_session = blocking(Mcp.close_session)
    tools = iterating(Mcp.tools)
    call = blocking(Mcp.call)
    resources = iterating(Mcp.resources)
    read = blocking(Mcp.read)
    prompts = iterating(Mcp.prompts)
    prompt = blocking(Mcp.prompt)


class SyncTasks(Face[Tasks]):
    """See `Tasks`."""

    create = blocking(Tasks.create)
    get = blocking(Tasks.get)
    list = iterating(Tasks.list)
    update = blocking(Tasks.update)
    delete = blocking(Tasks.delete)
    pause = blocking(Tasks.pause)
    resume = blocking(Tasks.resume)
    search = iterating(Tasks.search)
    depend = blocking(Tasks.depend)
    undepend = blocking(Tasks.undepend)
    dependencies = iterating(Tasks.dependencies)
    check = blocking(Tasks.check)
    render = blocking(Tasks.render)
    preview = blocking(Tasks.preview)
    execute = blocking(Tasks.execute)
    backfill = blocking(Tasks.backfill)


class SyncExecutions(Face[Executions]):
    """See `Executions`."""

    submit = blocking(Executions.submit)
    submit_many = blocking(Executions.submit_many)
    get = blocking(Executions.get)
    list = iterating(Executions.list)
    watch = iterating(Executions.watch)
    wait = blocking(Executions.wait)
    cancel = blocking(Executions.cancel)
    retry = blocking(Executions.retry)
    stats = blocking(Executions.stats)


class SyncFiles(Face[Files]):
    """See `Files`."""

    workspace = blocking(Files.workspace)
    list = iterating(Files.list)
    stat = blocking(Files.stat)
    upload = blocking(Files.upload)
    get_upload = blocking(Files.get_upload)
    cancel_upload = blocking(Files.cancel_upload)
    download = iterating(Files.download)
    read = blocking(Files.read)
    delete = blocking(Files.delete)
    move = blocking(Files.move)
    usage = blocking(Files.usage)


class SyncArchives(Face[Archives]):
    """See `Archives`."""

    create = blocking(Archives.create)
    get = blocking(Archives.get)
    restore = blocking(Archives.restore)
    list = iterating(Archives.list)
    download = iterating(Archives.download)
    read = blocking(Archives.read)
    delete = blocking(Archives.delete)
    clean_up = blocking(Archives.clean_up)


class SyncReports(Face[Reports]):
    """See `Reports`."""

    get = blocking(Reports.get)
    list = iterating(Reports.list)
    download = iterating(Reports.download)
    read = blocking(Reports.read)


class SyncCredentials(Face[Credentials]):
    """See `Credentials`."""

    create = blocking(Credentials.create)
    get = blocking(Credentials.get)
    list = iterating(Credentials.list)
    update = blocking(Credentials.update)
    delete = blocking(Credentials.delete)
    undelete = blocking(Credentials.undelete)
    access = blocking(Credentials.access)
    value = blocking(Credentials.value)
    add_version = blocking(Credentials.add_version)
    versions = iterating(Credentials.versions)
    disable_version = blocking(Credentials.disable_version)
    destroy_version = blocking(Credentials.destroy_version)
    step = blocking(Credentials.step)
    rotate = blocking(Credentials.rotate)
    grant = blocking(Credentials.grant)
    revoke = blocking(Credentials.revoke)
    grants = iterating(Credentials.grants)
    rotate_key = blocking(Credentials.rotate_key)
    key_status = blocking(Credentials.key_status)
    import_environment = blocking(Credentials.import_environment)


class SyncOrganizations(Face[Organizations]):
    """See `Organizations`."""

    create = blocking(Organizations.create)
    get = blocking(Organizations.get)
    list = iterating(Organizations.list)
    update = blocking(Organizations.update)


class SyncUsers(Face[Users]):
    """See `Users`."""

    create = blocking(Users.create)
    get = blocking(Users.get)
    list = iterating(Users.list)
    update = blocking(Users.update)
    disable = blocking(Users.disable)


class SyncKeys(Face[Keys]):
    """See `Keys`."""

    create = blocking(Keys.create)
    list = iterating(Keys.list)
    revoke = blocking(Keys.revoke)


class SyncQuotas(Face[Quotas]):
    """See `Quotas`."""

    get = blocking(Quotas.get)
    set = blocking(Quotas.set)
    usage = blocking(Quotas.usage)


class SyncAudit(Face[Audit]):
    """See `Audit`."""

    get = blocking(Audit.get)
    list = iterating(Audit.list)
    watch = iterating(Audit.watch)
    record = blocking(Audit.record)
    checkpoint = blocking(Audit.checkpoint)
    inclusion = blocking(Audit.inclusion)
    consistency = blocking(Audit.consistency)
    export = iterating(Audit.export)
    stats = blocking(Audit.stats)


class SyncMaintenance(Face[Maintenance]):
    """See `Maintenance`."""

    services = iterating(Maintenance.services)
    service = blocking(Maintenance.service)
    update = blocking(Maintenance.update)
    reset = blocking(Maintenance.reset)
    pause = blocking(Maintenance.pause)
    resume = blocking(Maintenance.resume)
    trigger = blocking(Maintenance.trigger)
    operation = blocking(Maintenance.operation)
    operations = iterating(Maintenance.operations)
    wait = blocking(Maintenance.wait)
    watch = iterating(Maintenance.watch)
    status = blocking(Maintenance.status)
    watch_status = iterating(Maintenance.watch_status)


class SyncHealth(Face[Health]):
    """See `Health`."""

    check = blocking(Health.check)
    services = blocking(Health.services)


class SyncClient(Face[Client]):
    """A connection to a server, for code without an event loop. Safe to share between threads."""

    def __init__(
        self, connection: Connection, *, timeout: timedelta = DEFAULT_TIMEOUT, attempts: int = DEFAULT_ATTEMPTS
    ) -> None:
        """Most callers want `SyncClient.connect`."""
        portal = Portal()

        async def made() -> Client:
            return Client(connection, timeout=timeout, attempts=attempts)

        try:
            client = portal.call(made)
        except BaseException:
            portal.close()
            raise
        super().__init__(portal, client)
        self.connection = connection
        self.sessions = SyncSessions(portal, client.sessions)
        self.permissions = SyncPermissions(portal, client.permissions)
        self.agents = SyncAgents(portal, client.agents)
        self.prompts = SyncPrompts(portal, client.prompts)
        self.experiments = SyncExperiments(portal, client.experiments)
        self.mcp = SyncMcp(portal, client.mcp)
        self.tasks = SyncTasks(portal, client.tasks)
        self.executions = SyncExecutions(portal, client.executions)
        self.files = SyncFiles(portal, client.files)
        self.archives = SyncArchives(portal, client.archives)
        self.reports = SyncReports(portal, client.reports)
        self.credentials = SyncCredentials(portal, client.credentials)
        self.organizations = SyncOrganizations(portal, client.organizations)
        self.users = SyncUsers(portal, client.users)
        self.keys = SyncKeys(portal, client.keys)
        self.quotas = SyncQuotas(portal, client.quotas)
        self.audit = SyncAudit(portal, client.audit)
        self.maintenance = SyncMaintenance(portal, client.maintenance)
        self.health = SyncHealth(portal, client.health)

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        api_key: str | None = None,
        *,
        context: str | None = None,
        tls: Tls | None = None,
        insecure: bool | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        attempts: int = DEFAULT_ATTEMPTS,
    ) -> Self:
        """Make a client for `with`; see `Client.connect`."""
        connection = resolve(target, api_key, context=context, tls=tls, insecure=insecure)
        return cls(connection, timeout=timeout, attempts=attempts)

    whoami = blocking(Client.whoami)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._portal.call(self._part.aclose)
        self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
