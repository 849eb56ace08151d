"""What a tool is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from stationmaster_server.agents.model import Effect


class ToolError(Exception):
    """A call went wrong in a way that the model should know of; the message is for it."""


def _unheard(message: str, fraction: float | None = None) -> None:
    """Progress that nobody listens to."""


def _unrelayed(server: str, level: str, logger: str, text: str) -> None:
    """What an MCP server says and nobody listens to."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and where a call runs. `report(message, fraction)` tells how far it is; call it from the event loop."""

    organization_id: UUID
    user_id: UUID
    session_id: UUID
    turn_id: UUID
    call_id: str
    workspace: Path
    report: Callable[[str, float | None], None] = _unheard
    relay: Callable[[str, str, str, str], None] = _unrelayed
    """Passes on what an MCP server says: its id, the level, which part of it, the text."""


class Tool(Protocol):
    """Something the model may call. `effect` is what happens where no rule matches."""

    @property
    def name(self) -> str:
        """Such as `files.read`."""

    @property
    def description(self) -> str:
        """What it does, for the model."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""

    @property
    def effect(self) -> Effect:
        """ALLOW for what only reads, ASK for what changes something."""

    @property
    def deadline(self) -> timedelta | None:
        """How long a call may take; None: as long as the runtime says."""

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ToolError when the arguments do not fit the schema."""

    async def run(self, context: ToolContext, arguments: Mapping[str, Any]) -> str:
        """The answer for the model. Cancelling it stops it at once.

        Raises:
            ToolError: It went wrong; the model is told why.
        """


class Arguments(BaseModel):
    """Base of every tool's typed arguments: unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


A = TypeVar("A", bound=Arguments)


class TypedTool(Generic[A]):
    """A tool made of a coroutine function and the type of its arguments."""

    def __init__(
        self,
        name: str,
        description: str,
        arguments: type[A],
        function: Callable[[ToolContext, A], Awaitable[str]],
        *,
        effect: Effect = Effect.ALLOW,
    ) -> None:
        self.name = name
        self.description = description
        self.effect = effect
        self.deadline: timedelta | None = None
        self.parameters: Mapping[str, Any] = _schema(arguments)
        self._arguments = arguments
        self._function = function

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ToolError when the arguments do not fit."""
        self._parse(arguments)

    async def run(self, context: ToolContext, arguments: Mapping[str, Any]) -> str:
        """Runs the function with the parsed arguments."""
        return await self._function(context, self._parse(arguments))

    def _parse(self, arguments: Mapping[str, Any]) -> A:
        try:
            return self._arguments.model_validate(arguments)
        except ValidationError as error:
            faults = [_fault(fault["loc"], fault["msg"]) for fault in error.errors(include_url=False)[:10]]
            raise ToolError(f"The arguments of {self.name} are wrong: {'; '.join(faults)}.") from None


@cache
def _schema(arguments: type[Arguments]) -> Mapping[str, Any]:
    schema = arguments.model_json_schema()
    # Titles repeat the names, and the description is the tool's: both would only cost tokens.
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    return schema


def _fault(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(step) for step in location)
    return f"{where}: {message}" if where else message
