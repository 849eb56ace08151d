"""Deciding about the calls of an answer, and running those that are allowed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta

from stationmaster_server.agents.model import Effect
from stationmaster_server.agents.runtime import (
    McpMessage,
    PermissionNeeded,
    Rulings,
    ToolCall,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    ToolResult,
    ToolsCompleted,
    TurnInput,
)
from stationmaster_server.agents.runtimes.arguments import INVALID_JSON
from stationmaster_server.agents.tools.source import Offered
from stationmaster_server.agents.tools.tool import Tool, ToolContext, ToolError

MAX_RESULT_BYTES = 256 * 1024
# Of all results of one answer's calls: they become one message, which every client must be able to read.
MAX_RESULTS_BYTES = 2 * 1024 * 1024
CUT_MARK = "\n[cut here: the result is longer than {most} bytes]"
# How long a cancelled tool may take to let go.
_LET_GO = 0.5
# A flood of reports is no flood of events: the newest of about ten a second are passed on.
_REPORT_PACE_SECONDS = 0.1

Report = ToolCallProgress | McpMessage
CallEvent = PermissionNeeded | ToolCallStarted | Report | ToolCallFinished | ToolsCompleted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a call: it runs (`tool`), waits for somebody (`asks`), or is refused (`refusal`)."""

    call: ToolCall
    tool: Tool | None = None
    asks: bool = False
    refusal: str = ""
    denied: bool = False
    """Whether it is refused because a policy or a person said no."""


def decide(call: ToolCall, offered: Offered, rulings: Rulings) -> Decision:
    """Decides about one call. What cannot run at all is refused without asking anybody."""
    tool = offered.tools.get(call.tool)
    if tool is None:
        return Decision(call, refusal=offered.refusal(call.tool))
    if fault := _fault(call, tool):
        return Decision(call, refusal=fault)
    ruling = rulings(call, tool.effect)
    if ruling.effect is Effect.DENY:
        return Decision(call, refusal=ruling.message or f"The call of {call.tool} was denied.", denied=True)
    if ruling.effect is Effect.ASK:
        return Decision(call, asks=True)
    if ruling.arguments is not None:
        call = replace(call, arguments=ruling.arguments)
        if fault := _fault(call, tool):
            return Decision(call, refusal=fault)
    return Decision(call, tool)


def invalid_json(call: ToolCall) -> str | None:
    """The text that the model sent as arguments, when it is no JSON object."""
    text = call.arguments.get(INVALID_JSON)
    return text if len(call.arguments) == 1 and isinstance(text, str) else None


def _fault(call: ToolCall, tool: Tool) -> str:
    if (text := invalid_json(call)) is not None:
        return f"The arguments are not a JSON object: {text[:200]!r}"
    try:
        tool.check(call.arguments)
    except ToolError as error:
        return str(error)
    return ""


def share(results: Iterable[ToolResult], open_calls: int) -> int:
    """How many bytes the next result may have, so that there is as much for each of the calls that are still open."""
    left = MAX_RESULTS_BYTES - sum(len(result.content.encode()) for result in results)
    return min(MAX_RESULT_BYTES, max(left, 0) // open_calls)


async def run_all(
    waiting: Sequence[ToolCall],
    results: dict[str, ToolResult],
    offered: Offered,
    turn: TurnInput,
    deadline: timedelta,
) -> AsyncGenerator[CallEvent, None]:
    """Gets every call of an answer its result, beside those it has; ends with ToolsCompleted.

    Or with PermissionNeeded, before anything has run.
    """
    open_calls = [call for call in waiting if call.call_id not in results]
    decisions = [decide(call, offered, turn.rulings) for call in open_calls]
    asking = tuple(decision.call for decision in decisions if decision.asks)
    if asking:
        yield PermissionNeeded(asking)
        return
    for done, decision in enumerate(decisions):
        most_bytes = share(results.values(), len(decisions) - done)
        async with aclosing(run(decision, turn, deadline, most_bytes)) as events:
            async for event in events:
                if isinstance(event, ToolCallFinished):
                    results[event.result.call_id] = event.result
                yield event
    yield ToolsCompleted(tuple(results[call.call_id] for call in waiting))


async def run(
    decision: Decision, turn: TurnInput, deadline: timedelta, most_bytes: int = MAX_RESULT_BYTES
) -> AsyncGenerator[ToolCallStarted | Report | ToolCallFinished, None]:
    """Runs, or refuses, a call about which is decided; its result is cut at `most_bytes`.

    Closing the iterator cancels the tool.
    """
    call, tool = decision.call, decision.tool
    if tool is None:
        refused = ToolResult(call.call_id, call.tool, cut(decision.refusal, most_bytes), is_error=True)
        yield ToolCallFinished(refused, timedelta(0), decision.denied)
        return
    yield ToolCallStarted(call)
    begun = time.perf_counter()
    reports = _Reports(call.call_id)
    limit = tool.deadline or deadline
    task = asyncio.create_task(_bounded(tool, call, _context(turn, call, reports), limit), name=call.tool)
    task.add_done_callback(lambda _: reports.wake())
    try:
        ended = False
        while not ended:
            await reports.wait()
            ended = task.done()
            for report in reports.take():
                yield report
            if not ended:
                await asyncio.wait([task], timeout=_REPORT_PACE_SECONDS)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_LET_GO)
    result = task.result()
    took = timedelta(seconds=time.perf_counter() - begun)
    yield ToolCallFinished(replace(result, content=cut(result.content, most_bytes)), took)


class _Reports:
    """What a tool told and nobody was told yet: of its progress the newest, of messages the newest hundred."""

    def __init__(self, call_id: str) -> None:
        self._progress: ToolCallProgress | None = None
        self._messages: deque[McpMessage] = deque(maxlen=100)
        self._call_id = call_id
        self._event = asyncio.Event()

    def add(self, message: str, fraction: float | None = None) -> None:
        self._progress = ToolCallProgress(self._call_id, message, fraction)
        self._event.set()

    def relay(self, server: str, level: str, logger: str, text: str) -> None:
        self._messages.append(McpMessage(server, level, text, self._call_id, logger))
        self._event.set()

    def take(self) -> list[Report]:
        taken: list[Report] = list(self._messages)
        if self._progress is not None:
            taken.append(self._progress)
        self._messages.clear()
        self._progress = None
        return taken

    def wake(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


def _context(turn: TurnInput, call: ToolCall, reports: _Reports) -> ToolContext:
    return ToolContext(
        turn.organization_id,
        turn.user_id,
        turn.session_id,
        turn.turn_id,
        call.call_id,
        turn.workspace,
        reports.add,
        reports.relay,
    )


async def _bounded(tool: Tool, call: ToolCall, context: ToolContext, deadline: timedelta) -> ToolResult:
    """The tool's answer within the deadline; what goes wrong is told to the model and ends nothing."""
    try:
        async with asyncio.timeout(deadline.total_seconds()) as limit:
            content = await tool.run(context, call.arguments)
    except ToolError as error:
        return _error(call, str(error))
    except TimeoutError:
        if not limit.expired():
            return _error(call, f"{call.tool} ran out of time.")
        return _error(call, f"{call.tool} did not finish within {deadline.total_seconds():g} seconds.")
    except Exception:  # noqa: BLE001 - a tool's fault ends its call, never the turn
        _log.exception("tool %s failed in session %s", call.tool, context.session_id)
        return _error(call, f"{call.tool} failed with an internal error.")
    return ToolResult(call.call_id, call.tool, content)


def _error(call: ToolCall, message: str) -> ToolResult:
    return ToolResult(call.call_id, call.tool, message, is_error=True)


def cut(content: str, most_bytes: int = MAX_RESULT_BYTES) -> str:
    """The content, or its beginning and a mark when it is longer, without what no text column takes."""
    encoded = content.replace("\0", "\ufffd").encode(errors="replace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    mark = CUT_MARK.format(most=most_bytes)
    return encoded[: max(most_bytes - len(mark), 0)].decode(errors="ignore") + mark
