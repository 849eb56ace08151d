"""Listening at a command line's way to its provider: the answer piece by piece, then that its turn is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager

from claude_agent_sdk import ResultMessage

from stationmaster_server.agents.runtime import AnswerRestarted, ModelCallStarted, TextDelta, ThinkingDelta
from stationmaster_server.agents.runtimes.claude import failures
from stationmaster_server.agents.runtimes.claude.answer import Answer
from stationmaster_server.agents.runtimes.claude.line import Held, Line
from stationmaster_server.agents.runtimes.claude.request import Request
from stationmaster_server.agents.runtimes.guard import Guarded
from stationmaster_server.agents.runtimes.retries import ProviderFailure
from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

_RESULT_LIMIT = 5.0
"""Seconds that the command line may take to say that a turn has ended, once its answer is whole."""

_log = logging.getLogger(__name__)


async def hear(
    line: Line, answer: Answer, model_id: str, call_of: Callable[[Request], ModelCallStarted]
) -> AsyncGenerator[ModelCallStarted | TextDelta | ThinkingDelta | AnswerRestarted, None]:
    """What is told of the answer, until it is whole. Each attempt begins once whoever iterates has set its cost aside.

    Raises:
        ProviderFailure: The provider refuses, or the command line is gone.
    """
    while not answer.whole:
        match await line.news.get():
            case None:
                raise failures.ended(model_id)
            case Held() as held:
                broken = answer.again()
                if broken is not None:
                    yield broken
                call = call_of(held.request)
                yield call
                answer.asked(call.max_input_tokens)
                held.grant(call.max_output_tokens)
            case ResultMessage(is_error=True) as result:
                raise failures.translate(result, line.failure, model_id, own_key=line.provider.own_key)
            case ResultMessage():
                raise failures.broken_off(model_id, "the answer broke off")
            case Mapping() as event:
                told = answer.take(event)
                if told is not None:
                    yield told


async def over(line: Line) -> bool:
    """Whether the command line says that the turn has ended, and with that has kept its transcript."""
    try:
        async with asyncio.timeout(_RESULT_LIMIT):
            match await line.news.get():
                case ResultMessage(is_error=False):
                    return True
    except TimeoutError:
        _log.warning("a command line of %s did not end its turn", line.model)
    return False


@contextmanager
def guarded(breaker: CircuitBreaker, answer: Answer, model_id: str) -> Iterator[None]:
    """The circuit breaker counts what goes wrong inside, and failures tell what the answer used in vain."""
    try:
        with Guarded(breaker):
            yield
    except ProviderFailure as failure:
        failure.usage = answer.in_vain
        raise
    except Unavailable as refused:
        if refused.retry_after is None:
            raise
        alone = failures.left_alone(model_id, refused.retry_after)
        alone.usage = answer.in_vain
        raise alone from None
