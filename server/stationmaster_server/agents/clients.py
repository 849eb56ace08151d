"""Clients of the providers' own libraries, as the model layer takes them. Slow to import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.providers import Provider

from stationmaster_server.agents.demo.model import DemoModel
from stationmaster_server.agents.providers import Protocol, ProviderSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Closing = Callable[[], Awaitable[None]]


def demo() -> Model:
    """The built-in model."""
    return DemoModel()


def make(provider: ProviderSettings, model_name: str) -> tuple[Model, Closing]:
    """A model of a provider, and how its connections are closed.

    The libraries' own retries are off: the loop does them, where it can tell readers.
    """
    match provider.protocol:
        case Protocol.ANTHROPIC:
            return _anthropic(provider, model_name)
        case Protocol.OPENAI:
            return _openai(provider, model_name)
        case Protocol.OPENAI_COMPATIBLE:
            return _openai_compatible(provider, model_name)
        case Protocol.GOOGLE:
            return _google(provider, model_name)


def _anthropic(provider: ProviderSettings, model_name: str) -> tuple[Model, Closing]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(
        api_key=provider.api_key, base_url=provider.base_url, max_retries=0, timeout=_timeout(provider)
    )
    return AnthropicModel(model_name, provider=AnthropicProvider(anthropic_client=client)), client.close


def _openai(provider: ProviderSettings, model_name: str) -> tuple[Model, Closing]:
    from openai import AsyncOpenAI
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(
        api_key=provider.api_key, base_url=provider.base_url, max_retries=0, timeout=_timeout(provider)
    )
    return _chat_model(provider, model_name, OpenAIProvider(openai_client=client)), client.close


def _openai_compatible(provider: ProviderSettings, model_name: str) -> tuple[Model, Closing]:
    from openai import AsyncOpenAI
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    # Never the environment's key: it is not this server's. Its library wants one even where none is needed.
    key = provider.api_key or "none"
    client = AsyncOpenAI(api_key=key, base_url=provider.base_url, max_retries=0, timeout=_timeout(provider))
    return _chat_model(
        provider, model_name, OpenAICompatibleProvider(provider.name, openai_client=client)
    ), client.close


def _chat_model(provider: ProviderSettings, model_name: str, reached: Provider[AsyncOpenAI]) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile

    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=provider.tells_end)
    return OpenAIChatModel(model_name, provider=reached, profile=profile)


def _google(provider: ProviderSettings, model_name: str) -> tuple[Model, Closing]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    http = httpx2.AsyncClient(timeout=_timeout(provider))
    reached = GoogleProvider(api_key=provider.api_key, base_url=provider.base_url, http_client=http)
    return GoogleModel(model_name, provider=reached), http.aclose


def _timeout(provider: ProviderSettings) -> httpx2.Timeout:
    return httpx2.Timeout(provider.silence_timeout.total_seconds(), connect=provider.connect_timeout.total_seconds())
