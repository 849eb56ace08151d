"""MCP servers, what they offer, and what they answer. Every text of a server is a third party's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID


class Level(StrEnum):
    """Whose a server is. Of servers of one name the nearest is used."""

    BUILT_IN = "BUILT_IN"
    ORGANIZATION = "ORGANIZATION"
    USER = "USER"


_LISTED_WITHIN = timedelta(minutes=1)
"""How long it takes at most to ping a server and to read its list before a call."""
NEARNESS = {Level.BUILT_IN: 0, Level.ORGANIZATION: 1, Level.USER: 2}


class SessionState(StrEnum):
    """How an MCP session stands."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Stdio:
    """A process that speaks over its standard input and output; it gets no other environment than this and PATH."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict)
    """Variables whose values name credentials: `{credentials/x}`."""
    granter: UUID | None = None
    """Whose right to these credentials it is: of the user who named them."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What the credentials held, while a connection is made and used: it is stored nowhere."""


@dataclass(frozen=True, slots=True)
class Http:
    """A server that is reached by streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict)
    """Headers whose values name credentials: `Bearer {credentials/x}`."""
    granter: UUID | None = None
    """Whose right to these credentials it is: of the user who named them."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What the credentials held, while a connection is made and used: it is stored nowhere."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A server in this process, by its name."""

    name: str


Transport = Stdio | Http | BuiltIn


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server. `etag` changes with every change of what is configured; a built-in one has no uid and no times."""

    server_id: str
    level: Level
    transport: Transport
    uid: UUID | None = None
    display_name: str = ""
    description: str = ""
    disabled: bool = False
    allowed_tools: tuple[str, ...] = ()
    idempotent_tools: tuple[str, ...] = ()
    trust_annotations: bool = False
    call_timeout: timedelta = timedelta(minutes=2)
    connect_timeout: timedelta = timedelta(seconds=30)
    etag: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def longest_call(self) -> timedelta:
        """How long a call lasts at most, with connecting and reading the list of tools before it."""
        return self.connect_timeout + self.call_timeout + _LISTED_WITHIN

    def allows(self, tool: str) -> bool:
        """Whether a tool of it may be used at all."""
        return not self.allowed_tools or any(fnmatchcase(tool, pattern) for pattern in self.allowed_tools)

    def is_idempotent(self, tool: Tool) -> bool:
        """Whether a call whose answer was lost may be made again."""
        if any(fnmatchcase(tool.name, pattern) for pattern in self.idempotent_tools):
            return True
        return self.trust_annotations and (tool.idempotent is True or tool.read_only is True)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of a server, as the server tells. The last four are its hints; None: it does not say."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    title: str = ""
    output_schema: Mapping[str, Any] | None = None
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None
    unusable_reason: str = ""
    """Why agents are not offered it, if they are not."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of a server, or (`is_template`) a template of their URIs."""

    uri: str
    name: str
    title: str = ""
    description: str = ""
    mime_type: str = ""
    size_bytes: int = 0
    is_template: bool = False


@dataclass(frozen=True, slots=True)
class PromptArgument:
    """An argument of a prompt."""

    name: str
    description: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a server."""

    name: str
    title: str = ""
    description: str = ""
    arguments: tuple[PromptArgument, ...] = ()


@dataclass(frozen=True, slots=True)
class TextContent:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class BlobContent:
    """An image or sound. `kind` is `image` or `audio`."""

    kind: str
    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True)
class ResourceContent:
    """A resource: by reference (neither text nor blob), or with its content."""

    uri: str
    name: str = ""
    description: str = ""
    mime_type: str = ""
    text: str | None = None
    blob: bytes | None = None


Content = TextContent | BlobContent | ResourceContent


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a tool answered. `truncated`: content was left out, because it was larger than the bound."""

    content: tuple[Content, ...]
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """A message of a prompt. `role` is `user` or `assistant`."""

    role: str
    content: Content


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A prompt with its arguments filled in."""

    description: str
    messages: tuple[PromptMessage, ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself. `capabilities`: `tools`, `resources`, `prompts`, `logging`, `completions`."""

    name: str
    version: str
    protocol_version: str
    instructions: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """How a server is; `problem` says what is wrong when it is not healthy."""

    healthy: bool
    problem: str = ""
    connect_latency: timedelta | None = None
    ping_latency: timedelta | None = None
    info: ServerInfo | None = None
    tools: int = 0
    resources: int = 0
    prompts: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class McpSession:
    """A connection of its own to a server."""

    id: UUID
    user_id: UUID
    server_id: str
    level: Level
    server_uid: UUID | None
    state: SessionState
    state_reason: str
    idle_timeout: timedelta
    created_at: datetime
    last_used_at: datetime
