"""The demo model as a model of pydantic-ai."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
)
from pydantic_ai.messages import (
    FinishReason,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from stationmaster_server.agents.demo.grammar import Calls, Fail, Order, Say, Slow, Tell, Think
from stationmaster_server.agents.demo.script import Step, next_step
from stationmaster_server.agents.runtimes.toolnames import wire_name

NAME = "demo"
# So that a long answer without pauses leaves room for other sessions, and its first word goes out at once.
_WORDS_AT_ONCE = 32

_WORD = re.compile(r"\s*\S+")
_FAILURES: dict[str, type[ModelAPIError]] = {
    "rate_limit": ModelRateLimitError,
    "overloaded": ModelOverloadedError,
    "server": ModelServerError,
    "connection": ModelConnectionError,
    "auth": ModelAuthenticationError,
    "context": ModelContextWindowExceededError,
}


class DemoModel(Model[None]):
    """Answers by a script that stands in the conversation itself."""

    @property
    def model_name(self) -> str:
        """Its name."""
        return NAME

    @property
    def system(self) -> str:
        """Its provider's name."""
        return NAME

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The whole answer at once."""
        async with self.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
        return stream.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The answer, word by word."""
        most = (model_settings or {}).get("max_tokens", 1_000_000_000)
        yield DemoStream(model_request_parameters, next_step(messages), most, _words_in(messages))


@dataclass
class DemoStream(StreamedResponse):
    """An answer under way. A word is a token."""

    _step: Step
    _words_left: int
    _input_tokens: int
    _parts: list[ModelResponsePart] = field(default_factory=list)
    _texts: dict[int, list[str]] = field(default_factory=dict)
    _output_tokens: int = 0
    _timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
        """The events, without the layers that a network stream needs."""
        if self._event_iterator is None:
            self._event_iterator = self._get_event_iterator()
        return self._event_iterator

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        pause = self._step.pause
        for order in self._step.orders:
            match order:
                case Slow(seconds):
                    pause = seconds
                case Calls(calls):
                    for number, call in enumerate(calls, 1):
                        call_id = f"{self._step.call_prefix}-{number}"
                        yield self._begin(ToolCallPart(wire_name(call.tool), call.arguments, call_id))
                        self._output_tokens += 1 + len(call.arguments.split())
                case Fail(reason):
                    raise _failure(reason)
                case _:
                    async for event in self._stream(order, pause):
                        yield event
                    if self._words_left <= 0:
                        break
        self.finish_reason = self._reason()
        self._finished = True

    async def _stream(self, order: Order, pause: float) -> AsyncIterator[ModelResponseStreamEvent]:
        """The words of a text or a thought; the first one begins the part."""
        thinking = isinstance(order, Think)
        index, spoken = len(self._parts), self._texts.setdefault(len(self._parts), [])
        gap = "\n" if not thinking and any(isinstance(part, TextPart) for part in self._parts) else ""
        for word in _words(order):
            if self._words_left <= 0:
                return
            self._words_left -= 1
            if pause:
                await asyncio.sleep(pause)
            if spoken:
                spoken.append(word)
                delta = ThinkingPartDelta(content_delta=word) if thinking else TextPartDelta(word)
                yield PartDeltaEvent(index=index, delta=delta)
            else:
                spoken.append(gap + word)
                yield self._begin(_thought(gap + word) if thinking else TextPart(gap + word))
            self._output_tokens += 1
            if len(spoken) % _WORDS_AT_ONCE == 1:
                await asyncio.sleep(0)

    def _begin(self, part: ModelResponsePart) -> PartStartEvent:
        self._parts.append(part)
        return PartStartEvent(index=len(self._parts) - 1, part=part)

    def get(self) -> ModelResponse:
        """The answer so far."""
        return ModelResponse(
            [self._said(index, part) for index, part in enumerate(self._parts)],
            usage=self.usage,
            model_name=NAME,
            timestamp=self._timestamp,
            provider_name=NAME,
            finish_reason=self.finish_reason,
            state="complete" if self._finished else "incomplete",
        )

    def _said(self, index: int, part: ModelResponsePart) -> ModelResponsePart:
        text = "".join(self._texts.get(index, ()))
        match part:
            case TextPart():
                return TextPart(text)
            case ThinkingPart():
                return _thought(text)
        return part

    def _reason(self) -> FinishReason:
        if self._words_left <= 0:
            return "length"
        return "tool_call" if any(isinstance(part, ToolCallPart) for part in self._parts) else "stop"

    @property
    def usage(self) -> RequestUsage:
        """One token a word."""
        return RequestUsage(input_tokens=self._input_tokens, output_tokens=self._output_tokens)

    async def close_stream(self) -> None:
        """There is no connection."""

    @property
    def model_name(self) -> str:
        """The model's name."""
        return NAME

    @property
    def provider_name(self) -> str:
        """The provider's name."""
        return NAME

    @property
    def provider_url(self) -> None:
        """None."""
        return None

    @property
    def timestamp(self) -> datetime:
        """When the answer began."""
        return self._timestamp


def _words(order: Order) -> Iterator[str]:
    match order:
        case Say(count):
            yield from (f" word{number}" if number > 1 else "word1" for number in range(1, count + 1))
        case Tell(text) | Think(text):
            yield from _WORD.findall(text)


def _thought(text: str) -> ThinkingPart:
    return ThinkingPart(text, signature="demo", provider_name=NAME)


def _failure(reason: str) -> ModelAPIError:
    kind = _FAILURES.get(reason, ModelRequestRejectedError)
    return kind(NAME, reason, body={"message": reason})


def _words_in(messages: list[ModelMessage]) -> int:
    """The words that the model was shown, counted by the gaps between them."""
    count = 0
    for message in messages:
        for part in message.parts:
            content = part.args_as_json_str() if isinstance(part, ToolCallPart) else getattr(part, "content", "")
            if isinstance(content, str):
                count += content.count(" ") + content.count("\n") + 1
    return count
