"""Agents: named specifications that sessions run, and the models there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import agent_pb2, agent_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query


class Agents:
    """`agents/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = agent_pb2_grpc.AgentServiceStub(calls.channel)

    async def create(
        self,
        agent_id: str,
        spec: agent_pb2.AgentSpec,
        *,
        display_name: str = "",
        description: str = "",
        validate_only: bool = False,
        request_id: str = "",
    ) -> agent_pb2.Agent:
        """Create an agent under an id of your choice (`^[a-z][a-z0-9-]{0,62}$`)."""
        agent = agent_pb2.Agent(spec=spec, display_name=display_name, description=description)
        request = agent_pb2.CreateAgentRequest(
            agent_id=agent_id, agent=agent, validate_only=validate_only, request_id=request_id
        )
        return await self._calls.unary(self._stub.CreateAgent, request)

    async def get(self, name: str) -> agent_pb2.Agent:
        """Return one agent."""
        return await self._calls.unary(self._stub.GetAgent, agent_pb2.GetAgentRequest(name=full("agents", name)))

    def list(self, **query: Unpack[Query]) -> Listing[agent_pb2.Agent, agent_pb2.ListAgentsResponse]:
        """List the organization's agents."""

        async def fetch(token: str) -> agent_pb2.ListAgentsResponse:
            return await self._calls.unary(
                self._stub.ListAgents, agent_pb2.ListAgentsRequest(page_token=token, **query)
            )

        return Listing(fetch, lambda page: page.agents)

    async def update(
        self, agent: agent_pb2.Agent, paths: Iterable[str] = (), *, validate_only: bool = False
    ) -> agent_pb2.Agent:
        """Change the fields named by `paths`, or all that are set. With its `etag` a stale agent is refused."""
        mask = FieldMask(paths=paths)
        request = agent_pb2.UpdateAgentRequest(
            agent=agent, update_mask=mask if mask.paths else None, validate_only=validate_only
        )
        return await self._calls.unary(self._stub.UpdateAgent, request)

    async def delete(self, name: str, *, etag: str = "", force: bool = False) -> None:
        """Delete an agent; with `force` even while open sessions name it."""
        request = agent_pb2.DeleteAgentRequest(name=full("agents", name), etag=etag, force=force)
        await self._calls.unary(self._stub.DeleteAgent, request)

    def models(
        self, *, provider: str = "", page_size: int = 0
    ) -> Listing[agent_pb2.Model, agent_pb2.ListModelsResponse]:
        """List the models that the server reaches, of one provider or of all."""
        condition = f'provider = "{provider}"' if provider else ""

        async def fetch(token: str) -> agent_pb2.ListModelsResponse:
            request = agent_pb2.ListModelsRequest(filter=condition, page_size=page_size, page_token=token)
            return await self._calls.unary(self._stub.ListModels, request)

        return Listing(fetch, lambda page: page.models)
