"""One attempt at a turn: what the runtime yields is made durable, step by step, under the worker's lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import assert_never

from stationmaster_server.agents.instructions import Instructed
from stationmaster_server.agents.model import OnBreach
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    McpMessage,
    ModelCallStarted,
    PermissionNeeded,
    Runtime,
    RuntimeFailure,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
    Usage,
)
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.sessions import events
from stationmaster_server.sessions.begun import Begun
from stationmaster_server.sessions.clock import Clock
from stationmaster_server.sessions.model import Breach, Ending, Partial, Turn, TurnState
from stationmaster_server.sessions.spending import Spending
from stationmaster_server.sessions.steps import Steps
from stationmaster_server.sessions.stopped import Stopped, limited, over_quota
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.work.run import Run

OUT_OF_TIME = "The call was stopped before it ended: the turn's time was used up. It may have had effects."


class Execution:
    """Consumes one runtime's events. Whatever it writes is conditional on the lease; LeaseLost leaves it at once."""

    def __init__(self, services: TurnServices, runtime: Runtime, prices: Prices, run: Run, begun: Begun) -> None:
        self._services = services
        self._runtime = runtime
        self._run = run
        self._begun = begun
        self._steps = Steps(services, run, begun)
        session = begun.session
        self._spending = Spending(begun.limits, session.id, session.spec.model, prices, session.usage, begun.turn.usage)
        self._step = begun.turn.step
        self._clock = Clock(self._steps, begun, self._interrupt)
        self._text: list[str] = []
        self._first_delta: asyncio.Future[int] | None = None
        self._last_delta: asyncio.Future[int] | None = None
        self._call: ToolCall | None = None
        """The tool call under way, and since when."""
        self._call_began = monotonic()
        self._instructed: Instructed | None = None
        self._task = _current_task()
        self._waiting = False
        self._interrupted = False
        self._why: Exception | None = None
        self._finished = False

    async def execute(self) -> None:
        """Run the turn to its end or to a permission request. The work item is completed in the same transaction.

        Raises:
            LeaseLost: Another worker has taken the turn over.
            CancelledError: The server is stopping; the item is handed back and the turn goes on elsewhere.
        """
        watcher = asyncio.create_task(self._watch_for_cancel())
        try:
            await self._consume()
        except Stopped as stopped:
            await self._stop(stopped)
        except RuntimeFailure as failure:
            ending = Ending(TurnState.FAILED, failure.reason, failure.message, final=failure.final)
            await self._end(ending, used=self._used_in_vain(failure))
        finally:
            watcher.cancel()
            await self._clock.close()

    async def _watch_for_cancel(self) -> None:
        await self._run.cancelled.wait()
        self._interrupt(None)

    def _interrupt(self, why: Exception | None) -> None:
        """Stop the runtime, but never a transaction: one that is open ends first (`_next` looks)."""
        if not self._interrupted:
            self._interrupted, self._why = True, why
            if self._waiting:
                self._task.cancel()

    def _stopping(self) -> bool:
        return self._interrupted

    async def _consume(self) -> None:
        self._clock.start()
        await self._clock.pay()
        self._spending.quota_left = await self._services.quotas.left(self._begun.caller)
        stream = self._runtime.run(self._spending.budgets(await self._instructed_input()))
        async with aclosing(stream):
            while not self._finished:
                event = await self._next(stream)
                if event is None:
                    raise RuntimeFailure("INTERNAL", "the runtime ended without an answer")
                await self._handle(event)

    async def _instructed_input(self) -> TurnInput:
        """The turn's input, with instructions in the place of the prompt that they come from."""
        begun = self._begun
        spec = begun.input.spec
        if not spec.prompt:
            return begun.input
        told = await self._services.instructions.of(begun.caller.tenant, spec, begun.session.agent_id, begun.session.id)
        self._instructed = told
        if (told.version, told.variant) != (begun.turn.prompt_version, begun.turn.prompt_variant):
            await self._steps.instructed(self._turn)
        return replace(begun.input, spec=replace(spec, instructions=told.text))

    async def _next(self, stream: AsyncGenerator[TurnEvent, None]) -> TurnEvent | None:
        if not self._interrupted:
            self._waiting = True
            try:
                return await anext(stream, None)
            except asyncio.CancelledError:
                if not self._stopping():
                    raise
                self._task.uncancel()
            finally:
                self._waiting = False
        raise self._why or Stopped(await self._steps.asked_ending(self._turn))

    async def _handle(self, event: TurnEvent) -> None:
        match event:
            case TextDelta():
                self._text.append(event.text)
                await self._write_delta(events.text_delta(self._begun.turn.id, event.step, event.text))
            case ThinkingDelta():
                await self._write_delta(events.thinking_delta(self._begun.turn.id, event.step, event.text))
            case ModelCallStarted():
                await self._reserve(event)
            case AnswerRestarted():
                await self._restart(event)
            case AnswerCompleted():
                await self._answer(event)
            case PermissionNeeded():
                await self._steps.ask(self._turn, event.calls, self._count_lap())
                self._finished = True
            case ToolCallStarted():
                await self._start_call(event.call)
            case ToolCallProgress():
                self._write(events.tool_call_progress(self._turn.id, event.call_id, event.fraction, event.message))
            case McpMessage(server=server, logger=events.OURS) if server in self._begun.told:
                pass
            case McpMessage():
                self._write(
                    events.mcp_message(
                        self._turn.id,
                        event.server,
                        event.level,
                        event.text,
                        call_id=event.call_id,
                        logger=event.logger,
                    )
                )
            case ToolCallFinished():
                self._call = None
                await self._steps.tool_finished(self._turn, event)
            case ToolsCompleted():
                await self._steps.tools_completed(self._turn, event.results, self._count_lap())
                self._step += 1
            case _:
                assert_never(event)

    def _write(self, event: NewEvent) -> asyncio.Future[int]:
        organization_id = self._begun.caller.tenant.organization_id
        return self._services.log.write(
            organization_id, self._begun.turn.session_id, event, fence=self._run.lease_token
        )

    async def _write_delta(self, event: NewEvent) -> None:
        await self._services.log.room()
        self._last_delta = self._write(event)
        if self._first_delta is None:
            self._first_delta = self._last_delta

    async def _partial(self) -> Partial:
        """What the step has brought so far, once all its deltas are durable."""
        if self._first_delta is None or self._last_delta is None:
            return Partial("".join(self._text))
        return Partial("".join(self._text), await self._first_delta, await self._last_delta)

    def _forget_deltas(self) -> None:
        self._text.clear()
        self._first_delta = self._last_delta = None

    async def _reserve(self, event: ModelCallStarted) -> None:
        most = self._spending.most_with(event)
        if isinstance(most, Breach):
            raise limited(most)
        await self._clock.pay()
        try:
            reservation = await self._steps.reserve(most, self._spending.reservation)
        except QuotaExceeded as exceeded:
            raise over_quota(exceeded) from exceeded
        self._spending.asked(event, most, reservation)

    async def _start_call(self, call: ToolCall) -> None:
        breach = self._spending.before_tool_call()
        if breach is not None:
            raise limited(breach)
        try:
            await self._steps.tool_started(self._turn, call)
        except QuotaExceeded as exceeded:
            raise over_quota(exceeded) from exceeded
        self._spending.count(Usage(tool_calls=1))
        self._call, self._call_began = call, monotonic()

    async def _restart(self, event: AnswerRestarted) -> None:
        self._spending.broken(event.usage)
        for taken_back in self._taken_back(await self._partial()):
            await self._write(taken_back)
        self._forget_deltas()

    def _taken_back(self, partial: Partial) -> list[NewEvent]:
        if not partial.first_delta:
            return []
        turn = self._turn
        return [events.answer_restarted(turn.id, turn.step, partial.first_delta, partial.last_delta)]

    async def _answer(self, event: AnswerCompleted) -> None:
        partial, spending = await self._partial(), self._spending
        event = replace(event, usage=spending.believed(event.usage))
        used = event.usage + self._clock.lap()
        spending.count(used)
        self._step = event.step
        await self._steps.answered(self._turn, event, partial, spending.reservation, used)
        spending.settled()
        self._tell_prompt(event.usage)
        self._forget_deltas()
        self._finished = not event.calls
        if event.calls and spending.quota_left is not None:
            spending.quota_left = await self._services.quotas.left(self._begun.caller)

    def _tell_prompt(self, used: Usage) -> None:
        """The figures of a prompt have every model call that it instructed, also one that was cut or failed."""
        if self._instructed is not None and used.model_calls:
            self._services.instructions.used(self._begun.caller.tenant, self._instructed, used)

    @property
    def _turn(self) -> Turn:
        """The turn as it stands."""
        turn = replace(self._begun.turn, step=self._step, usage=self._spending.turn)
        told = self._instructed
        return turn if told is None else replace(turn, prompt_version=told.version, prompt_variant=told.variant)

    def _used_in_vain(self, failure: RuntimeFailure) -> Usage:
        if failure.usage is not None:
            return self._spending.believed(failure.usage)
        # A provider that refused, or was not reached, charges nothing.
        return self._spending.cut("".join(self._text)) if self._text else Usage()

    def _count_lap(self) -> Usage:
        lap = self._clock.lap()
        self._spending.count(lap)
        return lap

    async def _stop(self, stopped: Stopped) -> None:
        breach = stopped.breach
        if breach is None:
            await self._end(stopped.ending)
        elif self._begun.limits.on_breach is OnBreach.ASK:
            await self._ask(breach)
        else:
            await self._end(stopped.ending, events.limit_reached(self._turn.id, breach))

    async def _ask(self, breach: Breach) -> None:
        """The turn waits at a limit. What was under way is cut: an answer is asked for anew, a call is not."""
        if self._call is not None:
            call, took = self._call, timedelta(seconds=monotonic() - self._call_began)
            result = ToolResult(call.call_id, call.tool, OUT_OF_TIME, is_error=True)
            await self._steps.tool_finished(self._turn, ToolCallFinished(result, took))
        spending, partial = self._spending, await self._partial()
        used = spending.cut(partial.text) + self._clock.lap()
        spending.count(used)
        before = self._taken_back(partial)
        await self._steps.ask_about(self._turn, breach, before, used, spending.reservation)
        self._tell_prompt(used)

    async def _end(self, ending: Ending, *before: NewEvent, used: Usage | None = None) -> None:
        partial = await self._partial()
        used = (self._spending.cut(partial.text) if used is None else used) + self._clock.lap()
        self._spending.count(used)
        await self._steps.finish(self._turn, ending, before, partial, used, self._spending.reservation)
        self._tell_prompt(used)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an execution is made inside the task that runs it")
    return task
