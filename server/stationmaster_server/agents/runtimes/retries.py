"""How patient the loop is with a provider, and with which failures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.agents.runtime import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a model is asked, and how long is waited in between: exponentially longer, with jitter."""

    attempts: int = 4
    first_wait: timedelta = timedelta(milliseconds=500)
    longest_wait: timedelta = timedelta(seconds=20)


class ProviderFailure(RuntimeFailure):
    """A model call failed. `retry_after`: seconds that the provider asked for; `blames_provider`: it is ill."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float = 0,
        blames_provider: bool = False,
    ) -> None:
        super().__init__(reason, message, retryable=retryable)
        self.retry_after = retry_after
        self.blames_provider = blames_provider
