"""One attempt at a turn: what the runtime yields is made durable, step by step, under the worker's lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import assert_never

from stationmaster_server.agents.prices import Prices, Tokens, estimate_tokens
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
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    ToolsCompleted,
    TurnEvent,
    Usage,
)
from stationmaster_server.errors import ResourceExhausted
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.quotas import Reservation
from stationmaster_server.sessions import events, limits
from stationmaster_server.sessions.begun import Begun
from stationmaster_server.sessions.model import Ending, Partial, TurnState
from stationmaster_server.sessions.steps import Steps
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.work.run import Run

_log = logging.getLogger(__name__)


class Stopped(Exception):
    """The turn is to end as `ending` says; `limit` when a limit stopped it."""

    def __init__(self, ending: Ending, *before: NewEvent) -> None:
        super().__init__(ending.state)
        self.ending = ending
        self.before = before


class Execution:
    """Consumes one runtime's events. Whatever it writes is conditional on the lease; LeaseLost leaves it at once."""

    def __init__(self, services: TurnServices, runtime: Runtime, prices: Prices, run: Run, begun: Begun) -> None:
        self._services = services
        self._runtime = runtime
        self._prices = prices
        self._run = run
        self._begun = begun
        self._steps = Steps(services, run, begun)
        self._session_used = begun.session.usage
        self._turn = begun.turn
        self._step_began = monotonic()
        self._text: list[str] = []
        self._first_delta: asyncio.Future[int] | None = None
        self._last_delta: asyncio.Future[int] | None = None
        self._asked: ModelCallStarted | None = None
        self._wasted = self._most = Usage()
        self._reservation: Reservation | None = None
        self._quota_left: int | None = None
        self._bounded = False
        self._task = _current_task()
        self._waiting = False
        self._interrupted = False
        self._why: Stopped | None = None
        self._finished = False

    async def execute(self) -> None:
        """Run the turn to its end or to a permission request. The work item is completed in the same transaction.

        Raises:
            LeaseLost: Another worker has taken the turn over.
            CancelledError: The server is stopping; the item is handed back and the turn goes on elsewhere.
        """
        watcher = asyncio.create_task(self._watch_for_cancel())
        timer = self._start_timer()
        try:
            await self._consume()
        except Stopped as stopped:
            await self._end(stopped.ending, *stopped.before)
        except RuntimeFailure as failure:
            ending = Ending(TurnState.FAILED, failure.reason, failure.message)
            await self._end(ending, used=self._used_in_vain(failure))
        finally:
            watcher.cancel()
            if timer is not None:
                timer.cancel()

    async def _watch_for_cancel(self) -> None:
        await self._run.cancelled.wait()
        self._interrupt(None)

    def _start_timer(self) -> asyncio.TimerHandle | None:
        limit = self._begun.limits.max_turn_duration
        if limit is None:
            return None
        left = max((limit - self._begun.active_time).total_seconds(), 0)
        seconds = int(limit.total_seconds())
        breach = self._limited(limits.Breach("max_turn_duration", seconds, seconds + 1))
        return asyncio.get_running_loop().call_later(left, self._interrupt, breach)

    def _interrupt(self, why: Stopped | None) -> None:
        """Stop the runtime, but never a transaction: one that is open ends first (`_next` looks)."""
        if not self._interrupted:
            self._interrupted, self._why = True, why
            if self._waiting:
                self._task.cancel()

    def _stopping(self) -> bool:
        return self._interrupted

    async def _consume(self) -> None:
        self._quota_left = await self._services.quotas.cost_left(self._begun.caller)
        budgets = replace(self._begun.input, output_budget=self._output_tokens_left, cost_budget=self._cost_left)
        stream = self._runtime.run(budgets)
        async with aclosing(stream):
            while not self._finished:
                event = await self._next(stream)
                if event is None:
                    raise RuntimeFailure("INTERNAL", "the runtime ended without an answer")
                await self._handle(event)

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
                await self._write_delta(events.text_delta(self._turn.id, event.step, event.text))
            case ThinkingDelta():
                await self._write_delta(events.thinking_delta(self._turn.id, event.step, event.text))
            case ModelCallStarted():
                await self._reserve(event)
            case AnswerRestarted():
                await self._restart(event)
            case AnswerCompleted():
                await self._answer(event)
            case PermissionNeeded():
                await self._steps.ask(self._turn, event.calls, self._lap())
                self._finished = True
            case ToolCallStarted():
                self._check_tool_limit()
                await self._steps.tool_started(self._turn, event.call)
            case ToolCallProgress():
                self._write(events.tool_call_progress(self._turn.id, event.call_id, event.fraction, event.message))
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
                self._count(Usage(tool_calls=1))
                await self._steps.tool_finished(self._turn, event)
            case ToolsCompleted():
                await self._steps.tools_completed(self._turn, event.results, self._lap())
                self._turn = replace(self._turn, step=self._turn.step + 1)
            case _:
                assert_never(event)

    def _write(self, event: NewEvent) -> asyncio.Future[int]:
        organization_id = self._begun.caller.tenant.organization_id
        return self._services.log.write(organization_id, self._turn.session_id, event, fence=self._run.lease_token)

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
        call, wasted = self._most_of(event), self._wasted
        session, turn = self._session_used + wasted, self._turn.usage + wasted
        breach = limits.before_model_call(self._begun.limits, session, turn, call)
        if breach is not None:
            raise self._limited(breach)
        most = wasted + call
        try:
            self._reservation = await self._steps.reserve(self._turn, most.cost_micros, self._reservation)
        except ResourceExhausted as exhausted:
            raise Stopped(Ending(TurnState.LIMITED, exhausted.reason, exhausted.message)) from exhausted
        self._asked, self._most, self._bounded = event, most, event.max_input_tokens > 0

    async def _restart(self, event: AnswerRestarted) -> None:
        self._wasted = self._most = self._believed(event.usage)
        self._asked = None
        partial = await self._partial()
        if partial.first_delta:
            await self._write(
                events.answer_restarted(self._turn.id, event.step, partial.first_delta, partial.last_delta)
            )
        self._forget_deltas()

    async def _answer(self, event: AnswerCompleted) -> None:
        partial = await self._partial()
        event = replace(event, usage=self._believed(event.usage))
        self._count(event.usage)
        self._turn = replace(self._turn, step=event.step)
        await self._steps.answered(self._turn, event, partial, self._reservation, self._lap())
        if self._quota_left is not None:
            self._quota_left = await self._services.quotas.cost_left(self._begun.caller)
        self._reservation = self._asked = None
        self._wasted = self._most = Usage()
        self._bounded = False
        self._forget_deltas()
        self._finished = not event.calls

    def _output_tokens_left(self, input_tokens: int) -> int | None:
        return limits.output_tokens_left(self._begun.limits, self._session_used, self._turn.usage, input_tokens)

    def _cost_left(self) -> int | None:
        left = limits.cost_left(self._begun.limits, self._session_used, self._turn.usage)
        return min((one for one in (left, self._quota_left) if one is not None), default=None)

    def _most_of(self, call: ModelCallStarted) -> Usage:
        """What a model call can use at most: that much is set aside for it."""
        input_tokens = call.max_input_tokens or call.estimated_input_tokens
        cost = max(call.max_cost_micros, self._prices.most(call.model, input_tokens, call.max_output_tokens))
        return Usage(input_tokens, call.max_output_tokens, cost_micros=cost)

    def _believed(self, reported: Usage) -> Usage:
        """What the step's model calls have used; of a report that cannot be true what was set aside."""
        if not self._bounded:
            return reported
        believed = limits.within(reported, self._most)
        if believed is not reported:
            told = "model %s reported that a call of session %s used %s: not believed, it cannot be more than %s"
            _log.warning(told, self._begun.session.spec.model, self._turn.session_id, reported, self._most)
        return believed

    def _cut_answer(self) -> Usage:
        """What a model call that was stopped has used, as far as one can tell: its provider does not say."""
        if self._asked is None:
            return self._wasted
        # The attempts before, whose provider may have said, were paid for as well.
        output_tokens = min(estimate_tokens("".join(self._text)), self._asked.max_output_tokens)
        return self._wasted + self._usage_of(self._asked, output_tokens)

    def _used_in_vain(self, failure: RuntimeFailure) -> Usage:
        if failure.usage is not None:
            return failure.usage
        # A provider that refused, or was not reached, charges nothing.
        return self._cut_answer() if self._text else Usage()

    def _usage_of(self, call: ModelCallStarted, output_tokens: int) -> Usage:
        tokens = Tokens(input=call.estimated_input_tokens, output=output_tokens)
        cost_micros, _ = self._prices.cost(call.model, tokens)
        return Usage(tokens.input, tokens.output, cost_micros=cost_micros, cost_estimated=True, model_calls=1)

    def _count(self, used: Usage) -> None:
        self._turn = replace(self._turn, usage=self._turn.usage + used)
        self._session_used = self._session_used + used

    def _check_tool_limit(self) -> None:
        breach = limits.before_tool_call(self._begun.limits, self._session_used, self._turn.usage)
        if breach is not None:
            raise self._limited(breach)

    def _limited(self, breach: limits.Breach) -> Stopped:
        text = f"{breach.limit} is {breach.limit_value}; {breach.used_value} would have been used"
        event = events.limit_reached(self._turn.id, breach.limit, breach.limit_value, breach.used_value)
        return Stopped(Ending(TurnState.LIMITED, "LIMIT_REACHED", text), event)

    def _lap(self) -> timedelta:
        """The time since the last lap: what the step took."""
        now = monotonic()
        passed, self._step_began = now - self._step_began, now
        return timedelta(seconds=passed)

    async def _end(self, ending: Ending, *before: NewEvent, used: Usage | None = None) -> None:
        partial = await self._partial()
        used = self._believed(self._cut_answer() if used is None else used)
        self._count(used)
        await self._steps.finish(self._turn, ending, before, partial, used, self._reservation, self._lap())


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an execution is made inside the task that runs it")
    return task
