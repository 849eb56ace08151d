"""The providers of models that are configured, and clients of their models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING

from stationmaster_server.agents.model import ModelInfo
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.runtimes.retries import ProviderFailure
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from pydantic_ai.models import Model

DEMO = "demo"
DEMO_OUTPUT_TOKENS = 100_000
_MOST_NAMED = 10
"""Of a provider's models, in an error."""


class Protocol(StrEnum):
    """What a provider speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    OPENAI_COMPATIBLE = "openai-compatible"
    GOOGLE = "google"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A provider. `name` stands before the colon of its model ids; `models` are listed beside the known ones."""

    name: str
    protocol: Protocol
    api_key: str = field(default="", repr=False)
    base_url: str | None = None
    models: tuple[str, ...] = ()
    max_output_tokens: int = 8_192
    """Of one model call, where the agent does not say."""
    connect_timeout: timedelta = timedelta(seconds=10)
    silence_timeout: timedelta = timedelta(minutes=2)
    """How long an answer under way may bring nothing."""
    tells_end: bool = True
    """Whether answers end with a finish reason (openai, openai-compatible): one without it has broken off then."""
    own_key: bool = False
    """Whether somebody brought the key along, and it is not this server's."""


@dataclass(frozen=True, slots=True)
class ModelClient:
    """A model that can be asked. One client serves many sessions at once."""

    model: Model
    breaker: CircuitBreaker
    max_output_tokens: int
    close_connections: Callable[[], Awaitable[None]] | None = None
    own_key: str = field(default="", repr=False)
    """What must not show in what the provider answers."""

    async def close(self) -> None:
        """Ends its connections."""
        if self.close_connections is not None:
            await self.close_connections()


class Providers:
    """The providers by name."""

    def __init__(
        self,
        settings: Iterable[ProviderSettings],
        prices: Prices,
        *,
        demo: bool = True,
        keyless: Iterable[ProviderSettings] = (),
    ) -> None:
        """`keyless`: providers that are reached only with a key that somebody brings along."""
        self._settings = {provider.name: provider for provider in settings}
        self._keyless = {provider.name: provider for provider in keyless} | self._settings
        self._prices = prices
        self._demo = demo
        # A model's clients may come and go; how its provider fares is remembered.
        self._breakers = {name: _breaker(name) for name in (DEMO, *self._keyless)}

    def check(self, model_id: str, *, own_key: bool = False) -> None:
        """Raises FailedPrecondition(MODEL_UNAVAILABLE) unless the model's provider is configured here.

        `own_key`: it will be asked with a key that somebody brings along.
        """
        why = self.unavailable(model_id, own_key=own_key)
        if why:
            violation = PreconditionViolation("MODEL", model_id, why)
            raise FailedPrecondition(Reason.MODEL_UNAVAILABLE, f"model {model_id!r} is not available: {why}", violation)

    def unavailable(self, model_id: str, *, own_key: bool = False) -> str:
        """Why calls of this model would not be tried; empty when they would."""
        if model_id == DEMO:
            return "" if self._demo else "the built-in model is turned off on this server"
        name, _, model = model_id.partition(":")
        provider = (self._keyless if own_key else self._settings).get(name)
        if not model and self._demo and get_close_matches(model_id.lower(), [DEMO]):
            return f"did you mean {DEMO}? {self._there_are()}"
        if not model:
            return f"there is no model of this name; {self._there_are()}"
        if provider is None:
            return f"provider {name!r} is not configured on this server; {self._there_are()}"
        return _lacking(replace(provider, api_key="one's own") if own_key else provider)

    def _there_are(self) -> str:
        """The models of this server, in words: the built-in one, and how those of its providers are named."""
        listed = [DEMO] if self._demo else []
        for provider in sorted(self._settings.values(), key=lambda each: each.name):
            models = provider.models[:_MOST_NAMED]
            listed += [f"{provider.name}:{model}" for model in models] or [f"{provider.name}:NAME"]
        if not listed:
            return f"it has none: configure a provider, whose models are named as {_EXAMPLE}"
        return f"there are: {', '.join(listed)}"

    def reached(self, model_id: str, own_key: str = "") -> tuple[ProviderSettings, CircuitBreaker]:
        """The provider of a model, with a key of one's own or this server's, and how it fares.

        Raises FailedPrecondition(MODEL_UNAVAILABLE).
        """
        self.check(model_id, own_key=bool(own_key))
        name = model_id.partition(":")[0]
        if own_key:
            # What one organization's key brings about must not keep others from the provider.
            return replace(self._keyless[name], api_key=own_key, own_key=True), _breaker(name)
        return self._settings[name], self._breakers[name]

    def speaks(self, model_id: str, protocol: Protocol, *, own_key: bool = False) -> bool:
        """Whether the model's provider is configured, but for a key of one's own, and speaks this protocol."""
        provider = (self._keyless if own_key else self._settings).get(model_id.partition(":")[0])
        return provider is not None and provider.protocol is protocol

    def make(self, model_id: str, own_key: str = "") -> ModelClient:
        """A new client of the model, with a key of one's own or this server's. Slow the first time: it imports.

        Raises:
            FailedPrecondition: MODEL_UNAVAILABLE.
        """
        from stationmaster_server.agents import clients

        self.check(model_id, own_key=bool(own_key))
        if model_id == DEMO:
            return ModelClient(clients.demo(), self._breakers[DEMO], DEMO_OUTPUT_TOKENS)
        provider, breaker = self.reached(model_id, own_key)
        model, close = clients.make(provider, model_id.partition(":")[2])
        return ModelClient(model, breaker, provider.max_output_tokens, close, own_key)

    def models(self) -> list[ModelInfo]:
        """Every model that is known here, by provider and id. Slow the first time: it reads the price catalogue."""
        found = {info.model_id: info for info in self._found()}
        return sorted(found.values(), key=lambda info: (info.provider, info.model_id))

    def _found(self) -> Iterator[ModelInfo]:
        from stationmaster_server.agents import catalogue

        yield self._info(DEMO, DEMO, 0)
        for provider, model_name, context_window in catalogue.chat_models():
            yield self._info(f"{provider}:{model_name}", provider, context_window)
        for settings in self._settings.values():
            for model_name in settings.models:
                window = catalogue.context_window(settings.name, model_name)
                yield self._info(f"{settings.name}:{model_name}", settings.name, window)

    def _info(self, model_id: str, provider: str, context_window: int) -> ModelInfo:
        why = self.unavailable(model_id)
        price = self._prices.of(model_id)
        return ModelInfo(
            model_id=model_id,
            provider=provider,
            available=not why,
            unavailable_reason=why,
            input_micros_per_million_tokens=price.input_micros if price else None,
            output_micros_per_million_tokens=price.output_micros if price else None,
            context_window_tokens=context_window,
        )


_EXAMPLE = "anthropic:claude-sonnet-5"
_LIBRARIES = {
    Protocol.ANTHROPIC: ("anthropic", "anthropic"),
    Protocol.OPENAI: ("openai", "openai"),
    Protocol.OPENAI_COMPATIBLE: ("openai", "openai"),
    Protocol.GOOGLE: ("google.genai", "google"),
}


def _lacking(provider: ProviderSettings) -> str:
    """What a configured provider lacks."""
    library, extra = _LIBRARIES[provider.protocol]
    if not _installed(library):
        return f"its library is not installed: pip install 'pydantic-ai-slim[{extra}]'"
    if provider.protocol is Protocol.OPENAI_COMPATIBLE:
        return "" if provider.base_url else f"provider {provider.name!r} has no base_url"
    return "" if provider.api_key else f"provider {provider.name!r} has no API key"


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


def _breaker(name: str) -> CircuitBreaker:
    # The demo model fails when it is told to, in one session and not in the others.
    failures = 1_000_000_000 if name == DEMO else 5
    return CircuitBreaker(
        f"model:{name}",
        failures=failures,
        reason=Reason.MODEL_UNAVAILABLE,
        counts=lambda error: isinstance(error, ProviderFailure) and error.blames_provider,
    )
