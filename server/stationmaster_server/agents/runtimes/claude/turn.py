"""One run of a turn on a command line: it asks the model, our side decides about the calls and runs them.

What comes next follows from the history and the results alone, as in the runtime `model`. The command line asks the
model again as soon as it has the results of the calls, so it gets them after the start of that model call is durable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    HistoryMessage,
    PermissionNeeded,
    RuntimeFailure,
    ToolCall,
    ToolCallFinished,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.agents.runtimes import calls
from stationmaster_server.agents.runtimes.calls import Decision
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
                started = await dialogue.prepare(step)
                yield started
                async with aclosing(dialogue.ask(started)) as answer:
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
        """Gets every call its result; ends with ToolsCompleted, or with PermissionNeeded before anything ran."""
        open_calls = [call for call in waiting if call.call_id not in results]
        decisions = [calls.decide(call, self._offered, self._turn.rulings) for call in open_calls]
        asking = tuple(decision.call for decision in decisions if decision.asks)
        if asking:
            yield PermissionNeeded(asking)
            return
        for done, decision in enumerate(decisions):
            most_bytes = calls.share(results.values(), len(decisions) - done)
            async with aclosing(calls.run(decision, self._turn, self._tool_deadline, most_bytes)) as events:
                async for event in events:
                    if isinstance(event, ToolCallFinished):
                        results[event.result.call_id] = event.result
                    yield event
        answers = tuple(results[call.call_id] for call in waiting)
        self._dialogue.ran(HistoryMessage("tool", answers), [_outcome(decision, results) for decision in decisions])
        yield ToolsCompleted(answers)


def _outcome(decision: Decision, results: Mapping[str, ToolResult]) -> Outcome:
    ran = None if decision.tool is None else decision.call.arguments
    return Outcome(results[decision.call.call_id], ran)
