"""Agents and models: whom sessions talk to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from stationmaster.v1 import agent_pb2

from stationmaster_client.mcp_server.answer import Answer, Limit, Paged, PageToken, cut, facts, moment, plain
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import reads


class Agent(Answer):
    """A named specification that sessions run."""

    name: str
    display_name: str
    description: str
    runtime: str
    model: str
    instructions: str
    tools: list[str]
    mcp_servers: list[str]
    tool_policies: dict[str, str] = Field(description="by pattern of tools: allow, ask or deny")
    updated: str

    def text(self) -> str:
        """All that is known."""
        return facts(
            agent=self.name,
            display_name=self.display_name,
            description=self.description,
            runtime=self.runtime,
            model=self.model,
            tools=", ".join(self.tools),
            mcp_servers=", ".join(self.mcp_servers),
            tool_policies=", ".join(f"{pattern}: {effect}" for pattern, effect in self.tool_policies.items()),
            updated=self.updated,
            instructions=self.instructions,
        )

    def line(self) -> str:
        """The agent on one line."""
        about = self.description or self.display_name
        return f"{self.name} ({self.model}){': ' + cut(about, 300) if about else ''}"


class Agents(Paged):
    """Some agents."""

    agents: list[Agent]

    def text(self) -> str:
        """One line each."""
        return self.more(
            (agent.line() for agent in self.agents), "No agents. create_session also takes a model of list_models."
        )


class Model(BaseModel):
    """A model that the server may reach."""

    model_id: str
    available: bool
    unavailable_reason: str
    context_window_tokens: int


class Models(Paged):
    """Some models."""

    models: list[Model]

    def text(self) -> str:
        """One line each."""
        lines = (
            model.model_id if model.available else f"{model.model_id}: unavailable, {model.unavailable_reason}"
            for model in self.models
        )
        return self.more(lines, "No models.")


def convert(agent: agent_pb2.Agent, instructions: int) -> Agent:
    """An agent as tools show it, with so many characters of its instructions."""
    spec = agent.spec
    return Agent(
        name=agent.name,
        display_name=agent.display_name,
        description=agent.description,
        runtime=plain(agent_pb2.Runtime.Name(spec.runtime), "RUNTIME"),
        model=spec.model,
        instructions=cut(spec.text or spec.prompt, instructions),
        tools=list(spec.tools),
        mcp_servers=list(spec.mcp_servers),
        tool_policies={
            policy.pattern: plain(agent_pb2.ToolEffect.Name(policy.effect), "TOOL_EFFECT")
            for policy in spec.tool_policies
        },
        updated=moment(agent.update_time),
    )


@reads("List agents")
async def list_agents(
    call: Call,
    filter: Annotated[str, Field(description='Which, e.g. model = "demo"; empty: all.')] = "",  # noqa: A002
    limit: Limit = 20,
    page_token: PageToken = "",
) -> Agents:
    """List the agents that a session can be begun with."""
    page = await call.client.agents.list(filter=filter, page_size=limit).page(page_token)
    return Agents(agents=[convert(agent, 200) for agent in page.agents], next_page_token=page.next_page_token)


@reads("Show an agent")
async def get_agent(call: Call, agent: Annotated[str, Field(description="agents/{id}, or the id alone.")]) -> Agent:
    """Show one agent: its model, instructions, tools, and which of them need permission."""
    return convert(await call.client.agents.get(agent), 20_000)


@reads("List models")
async def list_models(
    call: Call,
    provider: Annotated[str, Field(description="Only of this provider, e.g. anthropic.")] = "",
    limit: Limit = 50,
    page_token: PageToken = "",
) -> Models:
    """List the models that the server knows, and which of them can be used."""
    page = await call.client.agents.models(provider=provider, page_size=limit).page(page_token)
    models = [
        Model(
            model_id=model.model_id,
            available=model.available,
            unavailable_reason=model.unavailable_reason,
            context_window_tokens=model.context_window_tokens,
        )
        for model in page.models
    ]
    return Models(models=models, next_page_token=page.next_page_token)
