"""Listening to a command line: the answer piece by piece, then that its turn is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from claude_agent_sdk import ClaudeSDKError, ResultMessage, StreamEvent

from stationmaster_server.agents.runtime import AnswerRestarted, TextDelta, ThinkingDelta
from stationmaster_server.agents.runtimes.claude import failures
from stationmaster_server.agents.runtimes.claude.answer import Answer
from stationmaster_server.agents.runtimes.claude.live import Live
from stationmaster_server.agents.runtimes.guard import Guarded
from stationmaster_server.agents.runtimes.retries import ProviderFailure
from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

_RESULT_LIMIT = 5.0
"""Seconds that the command line may take to say that a turn has ended, once its answer is whole."""

_log = logging.getLogger(__name__)


async def hear(
    live: Live, answer: Answer, model_id: str
) -> AsyncGenerator[TextDelta | ThinkingDelta | AnswerRestarted, None]:
    """What readers are told of the answer, until it is whole.

    Raises:
        ProviderFailure: The provider refuses, or the command line is gone.
    """
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


async def over(live: Live, output_tokens: int) -> bool:
    """Whether the command line says that the turn has ended, and with that has kept its transcript.

    It counts as well as we do: what it counts beyond our `output_tokens` nobody has paid for.
    """
    try:
        async with asyncio.timeout(_RESULT_LIMIT):
            while (message := await live.hear()) is not None:
                match message:
                    case ResultMessage():
                        theirs = (message.usage or {}).get("output_tokens", 0)
                        if theirs > output_tokens:
                            name = live.place.session_id
                            _log.warning(
                                "session %s: %d output tokens, of which we know %d", name, theirs, output_tokens
                            )
                        return not message.is_error
                    case StreamEvent(event={"type": "message_start"}):
                        return False  # it asks on its own account: nobody set money aside for that
    except (ClaudeSDKError, TimeoutError):
        _log.warning("the command line of session %s did not end its turn", live.place.session_id)
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
