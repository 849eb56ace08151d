"""Agents: what a session runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from stationmaster_server.identity.model import STRICTNESS, Effect, ToolPolicy, strictest

__all__ = ["STRICTNESS", "Effect", "ToolPolicy", "strictest"]


class RuntimeName(StrEnum):
    """What runs the turns of a session."""

    MODEL = "MODEL"
    CLAUDE = "CLAUDE"


class OnPermissionTimeout(StrEnum):
    """What happens to a permission request that nobody answers in time."""

    DENY = "DENY"
    WAIT = "WAIT"
    PAUSE = "PAUSE"


class OnBreach(StrEnum):
    """What happens to a turn that is about to break a limit or a quota."""

    END = "END"
    ASK = "ASK"


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of the conversation the model is shown, in pairs of messages."""

    window_pairs: int = 50
    summarize: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a turn and of a session; None means no limit of this kind. Cost in millionths of a US dollar."""

    max_tokens_per_turn: int | None = None
    max_tokens_per_session: int | None = None
    max_cost_micros_per_turn: int | None = None
    max_cost_micros_per_session: int | None = None
    max_tool_calls_per_turn: int | None = None
    max_tool_calls_per_session: int | None = None
    max_turn_duration: timedelta | None = None
    max_session_duration: timedelta | None = None
    on_breach: OnBreach | None = None
    """None: not said here; where nobody says, END."""


@dataclass(frozen=True, slots=True)
class PermissionSettings:
    """How permission requests end."""

    deadline: timedelta = timedelta(hours=1)
    on_timeout: OnPermissionTimeout = OnPermissionTimeout.DENY


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What a session runs. `model` is `provider:name` or a built-in one."""

    model: str
    runtime: RuntimeName = RuntimeName.MODEL
    instructions: str = ""
    prompt: str = ""
    prompt_variables: str = "{}"
    """A JSON object, as text: specifications are compared and hashed."""
    tools: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    tool_policies: tuple[ToolPolicy, ...] = ()
    permissions: PermissionSettings = field(default_factory=PermissionSettings)
    memory: Memory = field(default_factory=Memory)
    limits: Limits = field(default_factory=Limits)
    max_output_tokens: int | None = None
    temperature: float | None = None
    credential: str = ""
    """`credentials/…`: the key for the model's provider, instead of this server's own."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A named specification. `etag` changes with every change."""

    agent_id: str
    uid: UUID
    display_name: str
    description: str
    spec: AgentSpec
    etag: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewAgent:
    """What an agent is made of."""

    agent_id: str
    spec: AgentSpec
    display_name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that this server knows. Prices in millionths of a US dollar per million tokens."""

    model_id: str
    provider: str
    available: bool
    unavailable_reason: str = ""
    input_micros_per_million_tokens: int | None = None
    output_micros_per_million_tokens: int | None = None
    context_window_tokens: int = 0
