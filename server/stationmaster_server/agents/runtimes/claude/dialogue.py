"""The command line that answers a turn: the one that waits for it, or another, begun anew from the messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from claude_agent_sdk import ClaudeSDKError

from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import ProviderSettings
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    HistoryMessage,
    ModelCallStarted,
    Text,
    TextDelta,
    ThinkingDelta,
    TurnInput,
)
from stationmaster_server.agents.runtimes import bounds
from stationmaster_server.agents.runtimes.claude import context, failures
from stationmaster_server.agents.runtimes.claude.answer import Answer
from stationmaster_server.agents.runtimes.claude.command import Asking, environment
from stationmaster_server.agents.runtimes.claude.desk import Outcome
from stationmaster_server.agents.runtimes.claude.hearing import guarded, hear, over
from stationmaster_server.agents.runtimes.claude.line import Line
from stationmaster_server.agents.runtimes.claude.live import Live, start
from stationmaster_server.agents.runtimes.claude.names import Names
from stationmaster_server.agents.runtimes.claude.pool import Pool
from stationmaster_server.agents.runtimes.claude.relay import Relay
from stationmaster_server.agents.runtimes.claude.request import Request
from stationmaster_server.agents.runtimes.claude.store import PROJECT, Transcripts
from stationmaster_server.agents.runtimes.claude.transcript import Scribe, said
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

AnswerEvent = ModelCallStarted | TextDelta | ThinkingDelta | AnswerRestarted | AnswerCompleted

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


class Dialogue:
    """One turn's. It has at most one command line, which it keeps or ends when it lets go."""

    def __init__(self, turn: TurnInput, offered: Mapping[str, Tool], means: Means) -> None:
        self.history = list(turn.history)
        """All that was said, with what the turn has brought so far."""
        self._turn = turn
        self._offered = offered
        self._means = means
        self._names = Names(offered)
        self._transcripts = Transcripts(means.database, Tenant(turn.organization_id, turn.user_id), PROJECT)
        self._live: Live | None = None
        self._outcomes: Sequence[Outcome] = ()
        self._clean = False

    def ran(self, results: HistoryMessage, outcomes: Sequence[Outcome]) -> None:
        """The calls of the newest answer have these results; the model is told of them when it is asked next."""
        self.history.append(results)
        self._outcomes = outcomes

    async def ask(self, step: int) -> AsyncGenerator[AnswerEvent, None]:
        """The start of each model call, the answer piece by piece, then whole.

        A failure counts against the provider if it is to blame.
        """
        model_id, means = self._turn.spec.model, self._means
        answer = Answer(step, model_id, self._names, means.prices)
        with guarded(means.breaker, answer, model_id):
            live = await self._put()
            async with aclosing(hear(live.line, answer, model_id, partial(self._call, step))) as heard:
                async for event in heard:
                    yield event
        completed = answer.completed()
        self.history.append(HistoryMessage("assistant", completed.parts))
        live.said += said(self.history[-1:])
        if not completed.calls:
            self._clean = answer.finish_reason != "length" and await over(live.line)
        yield completed

    def _call(self, step: int, request: Request) -> ModelCallStarted:
        """What the call comes to at most."""
        most = request.most_input_tokens
        wanted = min(request.max_output_tokens, self._asking.max_output_tokens)
        output_tokens = bounds.output_tokens(self._turn, self._means.prices, wanted, most)
        return ModelCallStarted(
            step, self._turn.spec.model, request.estimated_input_tokens, output_tokens, max_input_tokens=most
        )

    def _split(self) -> tuple[list[HistoryMessage], str | None]:
        """What was said before, and the user's message that is to be answered; None behind the results of tools."""
        *before, newest = self.history
        if newest.role != "user":
            return self.history, None
        return before, "\n\n".join(part.text for part in newest.parts if isinstance(part, Text))

    async def _waiting(self, before: Sequence[HistoryMessage], text: str | None) -> Live | None:
        """The command line that waits for this turn of its session, if it knows what was said."""
        found = self._means.pool.take(self._turn.session_id)
        if found is None:
            return None
        if text is not None and found.fits(self._asking, self._offered, said(before)):
            found.line.provider = self._means.provider  # the credential may hold another key by now
            return found
        await self._means.pool.end(found)
        return None

    @property
    def _asking(self) -> Asking:
        spec = self._turn.spec
        system = (part.text for m in self.history if m.role == "system" for part in m.parts if isinstance(part, Text))
        instructions = "\n\n".join(filter(None, (spec.instructions, *system)))
        most = spec.max_output_tokens or self._means.provider.max_output_tokens
        return Asking(spec.model.partition(":")[2], instructions, most)

    async def _put(self) -> Live:
        """Tell the command line what is new; from here on it asks the model."""
        before, text = self._split()
        known = self._live is not None
        live = self._live = self._live or await self._waiting(before, text)
        if live is None:
            # Behind results it asks as soon as it has started.
            live = self._live = await self._start(before, going_on=text is None)
        else:
            live.line.allow(self._means.retries.attempts)
        if text is not None:
            try:
                await live.say(text)
            except ClaudeSDKError:
                raise failures.ended(self._turn.spec.model) from None
            live.said += said(self.history[-1:])
        elif known:
            live.desk.forget()
            for outcome in self._outcomes:
                live.desk.tell(outcome)
            live.said += said(before[-1:])
        self._outcomes = ()
        return live

    async def _start(self, before: Sequence[HistoryMessage], *, going_on: bool) -> Live:
        """Another command line, which begins with what was said before."""
        turn, means, asking = self._turn, self._means, self._asking
        scribe = Scribe(turn.session_id, str(turn.workspace), asking.model, self._names)
        beginning = await context.prepare(self._transcripts, scribe, before)
        place = context.new_place(means.folder, turn.session_id, turn.workspace)
        await means.pool.place()
        line: Line | None = None
        try:
            line = await means.relay.open(means.provider, asking.model, means.retries.longest_wait)
            line.allow(means.retries.attempts)
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
            if line is not None:
                line.shut()
            means.pool.give_up()
            if isinstance(error, Exception) and not isinstance(error, StationmasterError):
                # The SDK raises Exception itself where it gives up waiting.
                _log.exception("the command line of session %s did not start", turn.session_id)
                raise failures.ended(turn.spec.model) from None
            raise
        means.pool.add(live)
        return live

    async def let_go(self) -> None:
        """Keep the command line for the session's next turn, if this one ended well; else end it."""
        live, self._live = self._live, None
        if live is not None and self._clean:
            await self._means.pool.keep(live)
        elif live is not None:
            await self._means.pool.end(live)
