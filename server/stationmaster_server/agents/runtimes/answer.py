"""One answer of a model: asked for, streamed, asked for again when the provider breaks off."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    ModelCallStarted,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from stationmaster_server.agents.runtimes import usage
from stationmaster_server.agents.runtimes.failures import (
    MODEL_ERRORS,
    broken_off,
    left_alone,
    translate,
)
from stationmaster_server.agents.runtimes.guard import Guarded
from stationmaster_server.agents.runtimes.messages import answer_parts
from stationmaster_server.agents.runtimes.retries import ProviderFailure, Retries
from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

AnswerEvent = ModelCallStarted | TextDelta | ThinkingDelta | AnswerRestarted | AnswerCompleted


@dataclass(frozen=True, slots=True)
class Question:
    """All that a model is asked with. `tools` are the tools by their wire names."""

    step: int
    model_id: str
    model: Model
    breaker: CircuitBreaker
    messages: list[ModelMessage]
    parameters: ModelRequestParameters
    settings: ModelSettings
    tools: Mapping[str, str]
    known_calls: frozenset[str]
    estimated_input_tokens: int
    most_input_tokens: int
    own_key: str = field(default="", repr=False)

    def started(self) -> ModelCallStarted:
        """What is told before each attempt."""
        return ModelCallStarted(
            step=self.step,
            model=self.model_id,
            estimated_input_tokens=self.estimated_input_tokens,
            max_output_tokens=self.settings["max_tokens"],
            max_input_tokens=self.most_input_tokens,
        )


@dataclass(slots=True)
class _Progress:
    """What the attempts came to so far; `characters` are those of the attempt under way."""

    begun: float = field(default_factory=time.perf_counter)
    first_delta: float = 0.0
    characters: int = 0
    broken: bool = False
    wasted: Usage = field(default_factory=Usage)

    @property
    def in_vain(self) -> Usage:
        """What is paid for without an answer: nothing, if no attempt brought a word."""
        return self.wasted if self.first_delta else Usage()


async def ask(question: Question, prices: Prices, retries: Retries) -> AsyncGenerator[AnswerEvent, None]:
    """Yields that the call starts, the deltas of the answer, then the answer. Closing the iterator ends it at once.

    Raises:
        ProviderFailure: The provider refuses, or still fails after the last attempt.
    """
    progress, step = _Progress(), question.step
    yield question.started()
    async for attempt in _attempts(retries):
        if progress.broken:
            progress.characters, progress.broken = 0, False
            yield AnswerRestarted(step, progress.wasted)
            # The attempts before have used up what was set aside for them: this one is paid for as well.
            yield question.started()
        with attempt, _guarded(question, progress):
            async with _stream(question) as stream:
                with _paid(stream, question, progress, prices):
                    async for event in stream:
                        delta = _delta(event, step)
                        if delta is not None:
                            if not progress.first_delta:
                                progress.first_delta = time.perf_counter()
                            progress.characters += len(delta.text)
                            yield delta
                    response = _whole(stream, question.model_id)
    yield _completed(question, response, progress, prices)


@contextmanager
def _guarded(question: Question, progress: _Progress) -> Iterator[None]:
    """The circuit breaker counts what goes wrong inside, and failures are told as ours, with what all attempts used."""
    try:
        with Guarded(question.breaker):
            try:
                yield
            except MODEL_ERRORS as error:
                raise translate(error, question.model_id, question.own_key) from None
    except ProviderFailure as failure:
        failure.usage = progress.in_vain
        raise
    except Unavailable as refused:
        alone = left_alone(question.model_id, refused.retry_after)
        alone.usage = progress.in_vain
        raise alone from None


def _stream(question: Question) -> AbstractAsyncContextManager[StreamedResponse]:
    return model_request_stream(
        question.model,
        question.messages,
        model_settings=question.settings,
        model_request_parameters=question.parameters,
        instrument=False,
    )


def _attempts(retries: Retries) -> AsyncRetrying:
    first, longest = retries.first_wait.total_seconds(), retries.longest_wait.total_seconds()
    backoff = wait_exponential_jitter(multiplier=first, max=longest, jitter=first)

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome is not None else None
        return max(backoff(state), failure.retry_after if isinstance(failure, ProviderFailure) else 0)

    def again(error: BaseException) -> bool:
        # A provider that wants to be left alone for longer than we would wait is not waited for.
        return isinstance(error, ProviderFailure) and error.retryable and error.retry_after <= longest

    return AsyncRetrying(
        stop=stop_after_attempt(retries.attempts), wait=wait, retry=retry_if_exception(again), reraise=True
    )


def _delta(event: ModelResponseStreamEvent, step: int) -> TextDelta | ThinkingDelta | None:
    """The text in an event of the stream, if it brings any. The hot path: the most frequent first."""
    if isinstance(event, PartDeltaEvent):
        delta = event.delta
        if isinstance(delta, TextPartDelta):
            return TextDelta(step, delta.content_delta) if delta.content_delta else None
        if isinstance(delta, ThinkingPartDelta) and delta.content_delta:
            return ThinkingDelta(step, delta.content_delta)
    elif isinstance(event, PartStartEvent):
        part = event.part
        if isinstance(part, TextPart) and part.content:
            return TextDelta(step, part.content)
        if isinstance(part, ThinkingPart) and part.content:
            return ThinkingDelta(step, part.content)
    return None


def _whole(stream: StreamedResponse, model_id: str) -> ModelResponse:
    """The answer, if the provider said that it is whole: a connection that ends early may look like its end."""
    response = stream.get()
    if response.finish_reason is None:
        raise broken_off(model_id, "the answer broke off")
    return response


@contextmanager
def _paid(stream: StreamedResponse, question: Question, progress: _Progress, prices: Prices) -> Iterator[None]:
    """What an answer used that breaks off inside is not forgotten."""
    try:
        yield
    except (*MODEL_ERRORS, ProviderFailure):
        progress.broken = True
        progress.wasted += usage.of_broken_answer(
            stream.usage, progress.characters, question.model_id, question.estimated_input_tokens, prices
        )
        raise


def _completed(question: Question, response: ModelResponse, progress: _Progress, prices: Prices) -> AnswerCompleted:
    now = time.perf_counter()
    used = usage.of_answer(response, question.model_id, question.estimated_input_tokens, prices)
    return AnswerCompleted(
        step=question.step,
        model=question.model_id,
        parts=answer_parts(response, question.tools, question.known_calls),
        usage=progress.wasted + used,
        latency=timedelta(seconds=now - progress.begun),
        first_token_latency=timedelta(seconds=(progress.first_delta or now) - progress.begun),
        finish_reason=response.finish_reason or "",
    )
