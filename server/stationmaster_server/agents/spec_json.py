"""A specification as the JSON that a column holds, and back. What has its default is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from stationmaster_server.agents.model import (
    AgentSpec,
    Limits,
    Memory,
    OnBreach,
    OnPermissionTimeout,
    PermissionSettings,
    RuntimeName,
)
from stationmaster_server.identity.policy_store import policies_from_json, policies_to_json

_MICROSECOND = timedelta(microseconds=1)
_COUNTS = (
    "max_tokens_per_turn",
    "max_tokens_per_session",
    "max_cost_micros_per_turn",
    "max_cost_micros_per_session",
    "max_tool_calls_per_turn",
    "max_tool_calls_per_session",
)
_DURATIONS = ("max_turn_duration", "max_session_duration")


def spec_to_json(spec: AgentSpec) -> dict[str, Any]:
    """The specification as a JSON object."""
    document: dict[str, Any] = {
        "runtime": spec.runtime.value,
        "model": spec.model,
        "instructions": spec.instructions,
        "prompt": spec.prompt,
        "prompt_variables": json.loads(spec.prompt_variables),
        "tools": list(spec.tools),
        "mcp_servers": list(spec.mcp_servers),
        "tool_policies": policies_to_json(spec.tool_policies),
        "permissions": {
            "deadline_us": spec.permissions.deadline // _MICROSECOND,
            "on_timeout": spec.permissions.on_timeout.value,
        },
        "memory": {"window_pairs": spec.memory.window_pairs, "summarize": spec.memory.summarize},
        "limits": limits_to_json(spec.limits),
        "max_output_tokens": spec.max_output_tokens,
        "temperature": spec.temperature,
        "credential": spec.credential,
    }
    return {key: value for key, value in document.items() if value not in ("", [], {}, None)}


def spec_from_json(document: Mapping[str, Any]) -> AgentSpec:
    """The specification that `spec_to_json` made this of; keys of later versions are ignored."""
    return AgentSpec(
        runtime=RuntimeName(document.get("runtime", RuntimeName.MODEL)),
        model=document.get("model", ""),
        instructions=document.get("instructions", ""),
        prompt=document.get("prompt", ""),
        prompt_variables=json.dumps(document.get("prompt_variables", {}), sort_keys=True),
        tools=tuple(document.get("tools", ())),
        mcp_servers=tuple(document.get("mcp_servers", ())),
        tool_policies=policies_from_json(document.get("tool_policies", ())),
        permissions=_permissions_from_json(document.get("permissions", {})),
        memory=_memory_from_json(document.get("memory", {})),
        limits=limits_from_json(document.get("limits", {})),
        max_output_tokens=document.get("max_output_tokens"),
        temperature=document.get("temperature"),
        credential=document.get("credential", ""),
    )


def limits_to_json(limits: Limits) -> dict[str, Any]:
    """Limits as a JSON object without those that are not set; durations in microseconds."""
    document: dict[str, Any] = {name: getattr(limits, name) for name in _COUNTS}
    for name in _DURATIONS:
        duration = getattr(limits, name)
        document[f"{name}_us"] = None if duration is None else duration // _MICROSECOND
    document["on_breach"] = limits.on_breach and limits.on_breach.value
    return {name: value for name, value in document.items() if value is not None}


def limits_from_json(document: Mapping[str, Any]) -> Limits:
    """The limits that `limits_to_json` made this of."""
    values: dict[str, Any] = {name: document.get(name) for name in _COUNTS}
    for name in _DURATIONS:
        if (microseconds := document.get(f"{name}_us")) is not None:
            values[name] = timedelta(microseconds=microseconds)
    on_breach = OnBreach(document["on_breach"]) if "on_breach" in document else None
    return Limits(**values, on_breach=on_breach)


def _permissions_from_json(document: Mapping[str, Any]) -> PermissionSettings:
    default = PermissionSettings()
    return PermissionSettings(
        timedelta(microseconds=document["deadline_us"]) if "deadline_us" in document else default.deadline,
        OnPermissionTimeout(document.get("on_timeout", default.on_timeout)),
    )


def _memory_from_json(document: Mapping[str, Any]) -> Memory:
    default = Memory()
    return Memory(document.get("window_pairs", default.window_pairs), document.get("summarize", default.summarize))
