"""Agents, specifications, limits and policies: protobuf to model and back."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from stationmaster.v1 import agent_pb2 as pb

from stationmaster_server.agents.model import (
    Agent,
    AgentSpec,
    Limits,
    Memory,
    ModelInfo,
    NewAgent,
    OnBreach,
    OnPermissionTimeout,
    PermissionSettings,
    RuntimeName,
)
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.convert import policies_from_proto, policies_to_proto
from stationmaster_server.wire.fields import duration, mapping, span, struct, timestamp

AGENT_NAME = "agents/{agent}"

_RUNTIMES = {
    pb.RUNTIME_UNSPECIFIED: RuntimeName.MODEL,
    pb.RUNTIME_MODEL: RuntimeName.MODEL,
    pb.RUNTIME_CLAUDE: RuntimeName.CLAUDE,
}
_ON_TIMEOUTS = {
    pb.ON_PERMISSION_TIMEOUT_UNSPECIFIED: OnPermissionTimeout.DENY,
    pb.ON_PERMISSION_TIMEOUT_DENY: OnPermissionTimeout.DENY,
    pb.ON_PERMISSION_TIMEOUT_WAIT: OnPermissionTimeout.WAIT,
    pb.ON_PERMISSION_TIMEOUT_PAUSE: OnPermissionTimeout.PAUSE,
}
_ON_BREACHES = {
    pb.ON_BREACH_UNSPECIFIED: None,
    pb.ON_BREACH_END: OnBreach.END,
    pb.ON_BREACH_ASK: OnBreach.ASK,
}
# The last number that stands for a value wins: never the unspecified one.
_RUNTIME_NUMBERS = {value: number for number, value in _RUNTIMES.items()}
_ON_BREACH_NUMBERS = {value: number for number, value in _ON_BREACHES.items()}
_ON_TIMEOUT_NUMBERS = {value: number for number, value in _ON_TIMEOUTS.items()}


def agent_to_proto(agent: Agent) -> pb.Agent:
    """An agent as its message."""
    return pb.Agent(
        name=f"agents/{agent.agent_id}",
        uid=str(agent.uid),
        display_name=agent.display_name,
        description=agent.description,
        spec=spec_to_proto(agent.spec),
        etag=agent.etag,
        create_time=timestamp(agent.created_at),
        update_time=timestamp(agent.updated_at),
    )


def new_agent(agent_id: str, message: pb.Agent) -> NewAgent:
    """What an agent is to be made of."""
    return NewAgent(agent_id, spec_from_proto(message.spec), message.display_name, message.description)


def agent_changes(message: pb.Agent, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `Agent`.

    Raises:
        InvalidArgument: `spec` is to change to none.
    """
    if "spec" in fields and not message.HasField("spec"):
        raise InvalidArgument.field("agent.spec", "is required when the update mask names it")
    changes: dict[str, Any] = {field: getattr(message, field) for field in fields - {"spec"}}
    if "spec" in fields:
        changes["spec"] = spec_from_proto(message.spec)
    return changes


def model_to_proto(model: ModelInfo) -> pb.Model:
    """A model as its message."""
    return pb.Model(
        model_id=model.model_id,
        provider=model.provider,
        available=model.available,
        unavailable_reason=model.unavailable_reason,
        input_micros_per_million_tokens=model.input_micros_per_million_tokens,
        output_micros_per_million_tokens=model.output_micros_per_million_tokens,
        context_window_tokens=model.context_window_tokens,
    )


def spec_to_proto(spec: AgentSpec) -> pb.AgentSpec:
    """A specification as its message."""
    message = pb.AgentSpec(
        runtime=_RUNTIME_NUMBERS[spec.runtime],
        model=spec.model,
        tools=spec.tools,
        mcp_servers=spec.mcp_servers,
        tool_policies=policies_to_proto(spec.tool_policies),
        permissions=permissions_to_proto(spec.permissions),
        memory=pb.Memory(window_pairs=spec.memory.window_pairs, summarize=spec.memory.summarize),
        limits=limits_to_proto(spec.limits),
        max_output_tokens=spec.max_output_tokens or 0,
        temperature=spec.temperature,
        credential=spec.credential,
    )
    if spec.prompt:
        message.prompt = spec.prompt
        message.prompt_variables.CopyFrom(struct(json.loads(spec.prompt_variables)))
    elif spec.instructions:
        message.text = spec.instructions
    return message


def spec_from_proto(message: pb.AgentSpec) -> AgentSpec:
    """The specification in a message; what is absent gets its default."""
    return AgentSpec(
        runtime=_RUNTIMES[message.runtime],
        model=message.model,
        instructions=message.text,
        prompt=message.prompt,
        prompt_variables=json.dumps(mapping(message.prompt_variables, "spec.prompt_variables"), sort_keys=True),
        tools=tuple(message.tools),
        mcp_servers=tuple(message.mcp_servers),
        tool_policies=policies_from_proto(message.tool_policies),
        permissions=permissions_from_proto(message.permissions),
        memory=Memory(message.memory.window_pairs or Memory().window_pairs, message.memory.summarize),
        limits=limits_from_proto(message.limits),
        max_output_tokens=message.max_output_tokens or None,
        temperature=message.temperature if message.HasField("temperature") else None,
        credential=message.credential,
    )


def limits_to_proto(limits: Limits) -> pb.Limits:
    """Limits as their message; zero means none."""
    return pb.Limits(
        max_tokens_per_turn=limits.max_tokens_per_turn or 0,
        max_tokens_per_session=limits.max_tokens_per_session or 0,
        max_cost_micros_per_turn=limits.max_cost_micros_per_turn or 0,
        max_cost_micros_per_session=limits.max_cost_micros_per_session or 0,
        max_tool_calls_per_turn=limits.max_tool_calls_per_turn or 0,
        max_tool_calls_per_session=limits.max_tool_calls_per_session or 0,
        max_turn_duration=duration(limits.max_turn_duration),
        max_session_duration=duration(limits.max_session_duration),
        on_breach=_ON_BREACH_NUMBERS[limits.on_breach],
    )


def limits_from_proto(message: pb.Limits) -> Limits:
    """The limits in a message."""
    return Limits(
        max_tokens_per_turn=message.max_tokens_per_turn or None,
        max_tokens_per_session=message.max_tokens_per_session or None,
        max_cost_micros_per_turn=message.max_cost_micros_per_turn or None,
        max_cost_micros_per_session=message.max_cost_micros_per_session or None,
        max_tool_calls_per_turn=message.max_tool_calls_per_turn or None,
        max_tool_calls_per_session=message.max_tool_calls_per_session or None,
        max_turn_duration=span(message, "max_turn_duration") or None,
        max_session_duration=span(message, "max_session_duration") or None,
        on_breach=_ON_BREACHES[message.on_breach],
    )


def permissions_to_proto(settings: PermissionSettings) -> pb.PermissionSettings:
    """How permission requests end, as its message."""
    return pb.PermissionSettings(
        deadline=duration(settings.deadline), on_timeout=_ON_TIMEOUT_NUMBERS[settings.on_timeout]
    )


def permissions_from_proto(message: pb.PermissionSettings) -> PermissionSettings:
    """How permission requests end; an absent deadline is the default."""
    default = PermissionSettings()
    deadline = span(message, "deadline")
    return PermissionSettings(deadline or default.deadline, _ON_TIMEOUTS[message.on_timeout])
