"""AgentService: messages in, the service, messages out."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import agent_pb2 as pb
from stationmaster.v1 import agent_pb2_grpc

from stationmaster_server.agents.convert import (
    AGENT_NAME,
    agent_changes,
    agent_to_proto,
    model_to_proto,
    new_agent,
)
from stationmaster_server.agents.service import UPDATABLE, AgentService
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import masked
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class AgentServicer(agent_pb2_grpc.AgentServiceServicer):
    """The methods of AgentService."""

    def __init__(self, service: AgentService, tokens: PageTokens) -> None:
        self._service = service
        self._tokens = tokens

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.Agent:
        """A new agent."""
        made = await self._service.create(
            caller_of(request), new_agent(request.agent_id, request.agent), validate_only=request.validate_only
        )
        return agent_to_proto(made)

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.Agent:
        """One agent."""
        return agent_to_proto(await self._service.get(current_caller(), parse(AGENT_NAME, request.name, str)))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """A page of agents."""
        asked = self._tokens.read(request)
        page = await self._service.list(current_caller(), request.filter, request.order_by, asked)
        agents, token = self._tokens.page(request, page, agent_to_proto)
        return pb.ListAgentsResponse(agents=agents, next_page_token=token)

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: Context) -> pb.Agent:
        """An agent changed."""
        agent_id = parse(AGENT_NAME, request.agent.name, str, field="agent.name")
        changed = await self._service.update(
            caller_of(request),
            agent_id,
            agent_changes(request.agent, masked(request, UPDATABLE)),
            request.agent.etag,
            validate_only=request.validate_only,
        )
        return agent_to_proto(changed)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> Empty:
        """An agent deleted."""
        agent_id = parse(AGENT_NAME, request.name, str)
        await self._service.delete(caller_of(request), agent_id, request.etag, force=request.force)
        return Empty()

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """A page of models."""
        page = await self._service.list_models(request.filter, self._tokens.read(request))
        models, token = self._tokens.page(request, page, model_to_proto)
        return pb.ListModelsResponse(models=models, next_page_token=token)
