"""`Client`: the async client."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from grpc import aio
from stationmaster.v1 import identity_pb2, identity_pb2_grpc

from stationmaster_client.agents import Agents
from stationmaster_client.archives import Archives
from stationmaster_client.audit import Audit
from stationmaster_client.calls import DEFAULT_TIMEOUT, Calls
from stationmaster_client.channel import DEFAULT_ATTEMPTS, open_channel
from stationmaster_client.connection import Connection, Tls, resolve
from stationmaster_client.credentials import Credentials
from stationmaster_client.executions import Executions
from stationmaster_client.experiments import Experiments
from stationmaster_client.files import Files
from stationmaster_client.health import Health
from stationmaster_client.identity import Keys, Organizations, Quotas, Users
from stationmaster_client.keyed import interceptors
from stationmaster_client.maintenance import Maintenance
from stationmaster_client.mcp import Mcp
from stationmaster_client.permissions import Permissions
from stationmaster_client.prompts import Prompts
from stationmaster_client.reports import Reports
from stationmaster_client.sessions import Sessions
from stationmaster_client.tasks import Tasks


class Client:
    """A connection to a server. Safe to share between the tasks of one event loop; make one per loop."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        attempts: int = DEFAULT_ATTEMPTS,
        channel: aio.Channel | None = None,
    ) -> None:
        """Most callers want `Client.connect`. With `channel` it shares that of another client (see `on_behalf_of`)."""
        self.connection = connection
        self._attempts = attempts
        self._keyed: aio.Channel | None = None
        self._calls = calls = Calls(channel or open_channel(connection, attempts), connection.api_key, timeout)
        self._identity = identity_pb2_grpc.IdentityServiceStub(calls.channel)
        self.sessions = Sessions(calls)
        self.permissions = Permissions(calls)
        self.agents = Agents(calls)
        self.prompts = Prompts(calls)
        self.experiments = Experiments(calls)
        self.mcp = Mcp(calls)
        self.tasks = Tasks(calls)
        self.executions = Executions(calls)
        self.files = Files(calls)
        self.archives = Archives(calls)
        self.reports = Reports(calls)
        self.credentials = Credentials(calls)
        self.organizations = Organizations(calls)
        self.users = Users(calls)
        self.keys = Keys(calls)
        self.quotas = Quotas(calls)
        self.audit = Audit(calls)
        self.maintenance = Maintenance(calls)
        self.health = Health(calls)

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
        """Make a client for `async with`; what is not given is found (see `connection.resolve`).

        `timeout` is the deadline of calls with one answer; `deadline` sets another. `attempts` (1 to 5) is how often a
        call is tried while the server is UNAVAILABLE. The first call connects. Raises ConfigurationError.
        """
        connection = resolve(target, api_key, context=context, tls=tls, insecure=insecure)
        return cls(connection, timeout=timeout, attempts=attempts)

    @property
    def channel(self) -> aio.Channel:
        """A gRPC channel for generated stubs: their calls carry the key, and nothing else that those of methods do."""
        if self._keyed is None:
            self._keyed = open_channel(self.connection, self._attempts, interceptors(self.connection.api_key))
        return self._keyed

    def on_behalf_of(self, api_key: str, *, timeout: timedelta = DEFAULT_TIMEOUT) -> Client:
        """A client with somebody else's key on the connection of this one, which closes it."""
        return Client(replace(self.connection, api_key=api_key), timeout=timeout, channel=self._calls.channel)

    async def whoami(self) -> identity_pb2.WhoAmIResponse:
        """Tell who the caller is, what it may do and how it was authenticated."""
        return await self._calls.unary(self._identity.WhoAmI, identity_pb2.WhoAmIRequest())

    async def aclose(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._calls.channel.close()
        if self._keyed is not None:
            await self._keyed.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
