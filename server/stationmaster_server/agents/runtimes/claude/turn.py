"""One run of a turn on a command line: it asks the model, our side decides about the calls and runs them.

What comes next follows from the history and the results alone, as in the runtime `model`. The command line asks the
model again as soon as it has the results of the calls; it waits at its line until that model call is paid for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    HistoryMessage,
    PermissionNeeded,
    RuntimeFailure,
    ToolCall,
    ToolCallStarted,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.agents.runtimes import calls
from stationmaster_server.agents.runtimes.claude.desk import Outcome
from stationmaster_server.agents.runtimes.claude.dialogue import Dialogue, Means
from stationmaster_server.agents.tools.source import Offered
from stationmaster_server.errors import Reason

# A turn of a model that never stops calling tools ends here, whatever its limits say.
MAX_STEPS = 1_000


class ClaudeTurn:
    """One run of a turn."""

    def __init__(self, turn: TurnInput, offered: Offered, means: Means) -> None:
        self._turn = turn
        self._offered = offered
        self._tool_deadline = means.tool_deadline
        self._dialogue = Dialogue(turn, offered.tools, means)

    async def run(self) -> AsyncGenerator[TurnEvent, None]:
        """Yields what happens; see `Runtime.run`."""
        dialogue, step, newest = self._dialogue, self._turn.step, self._turn.history[-1]
        waiting = tuple(part for part in newest.parts if isinstance(part, ToolCall))
        results = dict(self._turn.results)
        if newest.role == "assistant" and not waiting:
            return
        try:
            while True:
                if waiting:
                    async with aclosing(self._run_calls(waiting, results)) as events:
                        async for event in events:
                            yield event
                            if isinstance(event, PermissionNeeded):
                                return
                if step > MAX_STEPS:
                    raise RuntimeFailure(Reason.LIMIT_REACHED, f"the turn took more than {MAX_STEPS} model calls")
                async with aclosing(dialogue.ask(step)) as answer:
                    async for event in answer:
                        yield event
                        if isinstance(event, AnswerCompleted):
                            waiting, results = event.calls, {}
                if not waiting:
                    return
                step += 1
        finally:
            await dialogue.let_go()

    async def _run_calls(
        self, waiting: tuple[ToolCall, ...], results: dict[str, ToolResult]
    ) -> AsyncGenerator[TurnEvent, None]:
        """See `calls.run_all`; the command line hears what came of each call, and with which arguments it ran."""
        open_calls = [call.call_id for call in waiting if call.call_id not in results]
        ran: dict[str, dict[str, Any]] = {}
        running = calls.run_all(waiting, results, self._offered, self._turn, self._tool_deadline)
        async with aclosing(running) as events:
            async for event in events:
                if isinstance(event, ToolCallStarted):
                    ran[event.call.call_id] = event.call.arguments
                elif isinstance(event, ToolsCompleted):
                    outcomes = [Outcome(results[call_id], ran.get(call_id)) for call_id in open_calls]
                    self._dialogue.ran(HistoryMessage("tool", event.results), outcomes)
                yield event
