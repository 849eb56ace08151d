"""One run of a turn on a command line: it asks the model, our side decides about the calls and runs them.

What comes next follows from the history and the results alone, as in the runtime `model`. The command line asks the
model again as soon as it has the results of the calls, so it gets them after the start of that model call is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from claude_agent_sdk import ClaudeSDKError, ResultMessage, StreamEvent

from stationmaster_server.agents.prices import Prices, Tokens, estimate_tokens
from stationmaster_server.agents.providers import ProviderSettings
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    HistoryMessage,
    ModelCallStarted,
    PermissionNeeded,
    RuntimeFailure,
    Text,
    ToolCall,
    ToolCallFinished,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.agents.runtimes import calls
from stationmaster_server.agents.runtimes.calls import Decision
from stationmaster_server.agents.runtimes.claude import context, failures
from stationmaster_server.agents.runtimes.claude.answer import Answer
from stationmaster_server.agents.runtimes.claude.command import Asking, environment
from stationmaster_server.agents.runtimes.claude.context import Beginning
from stationmaster_server.agents.runtimes.claude.desk import Outcome
from stationmaster_server.agents.runtimes.claude.live import Live, start
from stationmaster_server.agents.runtimes.claude.names import Names
from stationmaster_server.agents.runtimes.claude.pool import Pool
from stationmaster_server.agents.runtimes.claude.relay import Relay
from stationmaster_server.agents.runtimes.claude.store import PROJECT, Transcripts
from stationmaster_server.agents.runtimes.claude.transcript import Scribe, said
from stationmaster_server.agents.runtimes.guard import Guarded
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import Reason, StationmasterError, Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

MAX_STEPS = 1_000
_RESULT_LIMIT = 5.0
"""Seconds that the command line may take to say that a turn has ended, once its answer is whole."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What every turn is run with."""

    database: Database
    pool: Pool
    relay: Relay
    prices: Prices
    provider: ProviderSettings
    breaker: CircuitBreaker
    retries: Retries
    tool_deadline: timedelta
    folder: Path


class ClaudeTurn:
    """One run of a turn. It has at most one command line, which it keeps or ends when it ends itself."""

    def __init__(self, turn: TurnInput, offered: Mapping[str, Tool], means: Means) -> None:
        self._turn = turn
        self._offered = offered
        self._means = means
        self._names = Names(offered)
        self._history = list(turn.history)
        self._transcripts = Transcripts(means.database, Tenant(turn.organization_id, turn.user_id), PROJECT)
        self._live: Live | None = None
        self._beginning: Beginning | None = None
        self._outcomes: list[Outcome] = []
        self._clean = False
        self._output_tokens = 0

    async def run(self) -> AsyncGenerator[TurnEvent, None]:
        """Yields what happens; see `Runtime.run`."""
        step, newest = self._turn.step, self._history[-1]
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
                started = await self._prepare(step)
                yield started
                async with aclosing(self._ask(started)) as answer:
                    async for event in answer:
                        yield event
                        if isinstance(event, AnswerCompleted):
                            waiting, results = event.calls, {}
                if not waiting:
                    return
                step += 1
        finally:
            await self._let_go()

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
            async with aclosing(calls.run(decision, self._turn, self._means.tool_deadline, most_bytes)) as events:
                async for event in events:
                    if isinstance(event, ToolCallFinished):
                        results[event.result.call_id] = event.result
                    yield event
        answers = tuple(results[call.call_id] for call in waiting)
        self._outcomes = [_outcome(decision, results) for decision in decisions]
        self._history.append(HistoryMessage("tool", answers))
        yield ToolsCompleted(answers)

    async def _prepare(self, step: int) -> ModelCallStarted:
        """What the next model call is, as far as one knows before it begins. Nothing is asked yet."""
        if step > MAX_STEPS:
            raise RuntimeFailure(Reason.LIMIT_REACHED, f"the turn took more than {MAX_STEPS} model calls")
        before, text = self._split()
        live = self._live = self._live or await self._waiting(before, text)
        estimated, most = self._figures(live.context_tokens if live else await self._begin_anew(before), text)
        if live is not None and live.asking.max_output_tokens != most:
            # It may say more than there is a budget for, or less than there is room for.
            await self._end()
            estimated, most = self._figures(await self._begin_anew(before), text)
        cost, _ = self._means.prices.cost(self._turn.spec.model, Tokens(estimated, most))
        return ModelCallStarted(step, self._turn.spec.model, estimated, most, cost)

    def _split(self) -> tuple[list[HistoryMessage], str | None]:
        """What was said before, and the user's message that is to be answered; None behind the results of tools."""
        *before, newest = self._history
        if newest.role != "user":
            return self._history, None
        return before, "\n\n".join(part.text for part in newest.parts if isinstance(part, Text))

    async def _waiting(self, before: Sequence[HistoryMessage], text: str | None) -> Live | None:
        """The command line that waits for this turn of its session, if it knows what was said."""
        found = self._means.pool.take(self._turn.session_id)
        if found is None:
            return None
        if text is not None and found.fits(self._asking(found.asking.max_output_tokens), self._offered, said(before)):
            return found
        await self._means.pool.end(found)
        return None

    async def _begin_anew(self, before: Sequence[HistoryMessage]) -> int:
        """Read what another command line begins with; about how many tokens that takes."""
        model = self._turn.spec.model.partition(":")[2]
        scribe = Scribe(self._turn.session_id, str(self._turn.workspace), model, self._names)
        self._beginning = await context.prepare(self._transcripts, scribe, before)
        return self._beginning.estimated_tokens + context.estimate_offer(self._offered, self._turn.spec.instructions)

    def _figures(self, context_tokens: int, text: str | None) -> tuple[int, int]:
        """About how many tokens the next call takes, and how many it may make."""
        new = (
            estimate_tokens(text)
            if text is not None
            else sum(estimate_tokens(o.result.content) for o in self._outcomes)
        )
        estimated = context_tokens + new
        most = self._turn.spec.max_output_tokens or self._means.provider.max_output_tokens
        budget = self._turn.output_budget
        left = budget(estimated) if budget is not None else None
        return estimated, most if left is None else max(1, min(most, left))

    def _asking(self, max_output_tokens: int) -> Asking:
        spec = self._turn.spec
        system = (part.text for m in self._history if m.role == "system" for part in m.parts if isinstance(part, Text))
        instructions = "\n\n".join(filter(None, (spec.instructions, *system)))
        return Asking(spec.model.partition(":")[2], instructions, max_output_tokens)

    async def _ask(self, started: ModelCallStarted) -> AsyncGenerator[TurnEvent, None]:
        """The answer, piece by piece, then whole. A failure counts against the provider if it is to blame."""
        spec, means = self._turn.spec, self._means
        answer = Answer(started.step, spec.model, self._names, means.prices, started.estimated_input_tokens)
        with _guarded(means.breaker, spec.model):
            live = await self._put(started.max_output_tokens)
            async with aclosing(self._hear(live, answer)) as heard:
                async for event in heard:
                    yield event
        completed = answer.completed()
        self._history.append(HistoryMessage("assistant", completed.parts))
        live.said += said(self._history[-1:])
        self._output_tokens += completed.usage.output_tokens
        live.context_tokens = completed.usage.input_tokens + completed.usage.output_tokens
        if not completed.calls:
            self._clean = answer.finish_reason != "length" and await self._over(live)
        yield completed

    async def _put(self, max_output_tokens: int) -> Live:
        """Tell the command line what is new; from here on it asks the model."""
        before, text = self._split()
        live, known = self._live, self._live is not None
        if live is None:
            # Behind results it asks as soon as it has started.
            live = self._live = await self._start(max_output_tokens, going_on=text is None)
        else:
            live.line.allow(self._means.retries.attempts, max_output_tokens)
        if text is not None:
            try:
                await live.say(text)
            except ClaudeSDKError:
                raise failures.ended(self._turn.spec.model) from None
            live.said += said(self._history[-1:])
        elif known:
            live.desk.forget()
            for outcome in self._outcomes:
                live.desk.tell(outcome)
            live.said += said(before[-1:])
        self._outcomes = []
        return live

    async def _start(self, max_output_tokens: int, *, going_on: bool) -> Live:
        turn, means, beginning = self._turn, self._means, self._beginning
        if beginning is None:
            raise RuntimeError("a command line begins with what was prepared")
        asking = self._asking(max_output_tokens)
        place = context.new_place(means.folder, turn.session_id, turn.workspace)
        await means.pool.place()
        line = await means.relay.open(means.provider, asking.model, means.retries.longest_wait)
        line.allow(means.retries.attempts, max_output_tokens)
        try:
            seen = environment(place, asking, line.url, line.token, means.retries, going_on=going_on)
            await context.settle(self._transcripts, beginning, place, asking.instructions)
            live = await start(
                place,
                asking,
                self._offered,
                seen,
                line,
                self._transcripts,
                beginning.said,
                resume=bool(beginning.entries),
            )
        except BaseException as error:
            line.shut()
            means.pool.give_up()
            if isinstance(error, Exception) and not isinstance(error, StationmasterError):
                # The SDK raises Exception itself where it gives up waiting.
                _log.exception("the command line of session %s did not start", turn.session_id)
                raise failures.ended(turn.spec.model) from None
            raise
        means.pool.add(live)
        return live

    async def _hear(self, live: Live, answer: Answer) -> AsyncGenerator[TurnEvent, None]:
        """What readers are told of the answer, until it is whole."""
        model_id = self._turn.spec.model
        while not answer.whole:
            try:
                message = await live.hear()
            except ClaudeSDKError:
                message = None
            match message:
                case None:
                    raise failures.ended(model_id)
                case StreamEvent(parent_tool_use_id=None, event=event):
                    told = answer.take(event)
                    if told is not None:
                        yield told
                case ResultMessage(is_error=True):
                    raise failures.translate(message, live.line.failure, model_id)
                case ResultMessage():
                    raise failures.broken_off(model_id, "the answer broke off")

    async def _over(self, live: Live) -> bool:
        """Whether the command line says that the turn has ended, and with that has kept its transcript."""
        try:
            async with asyncio.timeout(_RESULT_LIMIT):
                while (message := await live.hear()) is not None:
                    match message:
                        case ResultMessage():
                            self._compare(message)
                            return not message.is_error
                        case StreamEvent(event={"type": "message_start"}):
                            return False  # it asks on its own account: nobody set money aside for that
        except (ClaudeSDKError, TimeoutError):
            _log.warning("the command line of session %s did not end its turn", self._turn.session_id)
        return False

    def _compare(self, result: ResultMessage) -> None:
        """The command line counts as well: what it counts beyond our count nobody has paid for."""
        theirs = (result.usage or {}).get("output_tokens", 0)
        if theirs > self._output_tokens:
            _log.warning(
                "the command line of session %s counts %d output tokens in this turn, we %d",
                self._turn.session_id,
                theirs,
                self._output_tokens,
            )

    async def _let_go(self) -> None:
        live, self._live = self._live, None
        if live is not None and self._clean:
            await self._means.pool.keep(live)
        elif live is not None:
            await self._means.pool.end(live)

    async def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await self._means.pool.end(live)


def _outcome(decision: Decision, results: Mapping[str, ToolResult]) -> Outcome:
    ran = None if decision.tool is None else decision.call.arguments
    return Outcome(results[decision.call.call_id], ran)


@contextmanager
def _guarded(breaker: CircuitBreaker, model_id: str) -> Iterator[None]:
    """The circuit breaker counts what goes wrong inside."""
    try:
        with Guarded(breaker):
            yield
    except Unavailable as refused:
        if refused.retry_after is None:
            raise
        raise failures.left_alone(model_id, refused.retry_after) from None
