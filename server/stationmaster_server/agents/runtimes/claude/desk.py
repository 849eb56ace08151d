"""Where the command line waits for what our side decides about the calls of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from claude_agent_sdk import (
    HookContext,
    HookInput,
    HookJSONOutput,
    PermissionResultAllow,
    PermissionResultDeny,
    ToolPermissionContext,
)

from stationmaster_server.agents.runtime import ToolResult
from stationmaster_server.agents.runtimes.claude.names import Names
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.mcp.offering import OfferedTool, Reply

CALL_ID = "claudecode/toolUseId"
MAX_RESULT = "anthropic/maxResultSizeChars"
_MOST_CHARACTERS = 500_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call. `arguments` are those it ran with; None when it was not allowed to run."""

    result: ToolResult
    arguments: dict[str, Any] | None


class Desk:
    """Every tool runs on our side, under our policies; the command line asks, and is told once all are decided and run.

    It may ask for permission (`may_run`), for a result (`call`), and before it asks the model again (`before_asking`).
    All three wait for `tell`: so nothing goes on before each step is durable, and nobody answers for the command line
    while a person thinks.
    """

    def __init__(self) -> None:
        self._told: dict[str, asyncio.Future[Outcome]] = {}

    def tell(self, outcome: Outcome) -> None:
        """What became of a call."""
        future = self._of(outcome.result.call_id)
        if not future.done():
            future.set_result(outcome)

    def forget(self) -> None:
        """A new answer begins: nobody asks about the calls of the one before."""
        self._told = {call_id: future for call_id, future in self._told.items() if not future.done()}

    async def may_run(
        self, tool: str, arguments: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        """The SDK's `can_use_tool`."""
        outcome = await self._outcome(context.tool_use_id)
        if outcome.arguments is None:
            return PermissionResultDeny(message=outcome.result.content)
        return PermissionResultAllow(updated_input=outcome.arguments)

    async def before_asking(self, given: HookInput, call_id: str | None, context: HookContext) -> HookJSONOutput:
        """A hook behind all calls of an answer, also those that the command line refused by itself."""
        for call in _calls(given):
            await self._outcome(call)
        return {}

    async def call(self, tool: str, arguments: Mapping[str, Any], said: Mapping[str, Any]) -> Reply:
        """The result of a call."""
        result = (await self._outcome(said.get(CALL_ID))).result
        return Reply(result.content, result.is_error)

    async def _outcome(self, call_id: str | None) -> Outcome:
        return await asyncio.shield(self._of(call_id or ""))

    def _of(self, call_id: str) -> asyncio.Future[Outcome]:
        if call_id not in self._told:
            self._told[call_id] = asyncio.get_running_loop().create_future()
        return self._told[call_id]


def offered_tools(offered: Mapping[str, Tool], names: Names) -> list[OfferedTool]:
    """Our tools as the command line is offered them."""
    meta = {MAX_RESULT: _MOST_CHARACTERS}
    return [OfferedTool(names.wire(name), tool.description, tool.parameters, meta) for name, tool in offered.items()]


def _calls(given: HookInput) -> list[str]:
    calls = dict(given).get("tool_calls")
    return [call["tool_use_id"] for call in calls] if isinstance(calls, list) else []
