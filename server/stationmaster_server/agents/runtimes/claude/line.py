"""A command line's way to its provider: what it asks waits here until it is paid for, what it hears is heard here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from claude_agent_sdk import ResultMessage

from stationmaster_server.agents.providers import ProviderSettings
from stationmaster_server.agents.runtimes.claude.request import Request

_MOST_NEWS = 256


class Held:
    """A call that waits until what it can cost is set aside."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def grant(self, max_output_tokens: int) -> None:
        """Let it through, with so many tokens of output."""
        if not self._granted.done():
            self._granted.set_result(max_output_tokens)

    async def granted(self) -> int:
        """With how many tokens of output it goes through; 0: not at all."""
        return await self._granted


News = Held | ResultMessage | Mapping[str, Any] | None
"""A call that waits, an event of the answer to one, that the command line ended its turn, or (None) itself."""


@dataclass(eq=False)
class Line:
    """It lets one answer through for each `allow`, and one call at a time. Whoever runs the turn reads `news`."""

    provider: ProviderSettings
    model: str
    url: str
    longest_wait: timedelta
    """A provider that wants to be left alone for longer is not asked again."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    news: asyncio.Queue[News] = field(default_factory=lambda: asyncio.Queue(_MOST_NEWS), repr=False)
    allowed: bool = False
    attempts_left: int = 0
    failure: tuple[int, str] | None = None
    """The status and the words with which the provider refused last: the command line may try something else then."""
    is_open: bool = True
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _held: Held | None = field(default=None, repr=False)

    def allow(self, attempts: int) -> None:
        """One answer may be asked for, so often until it is whole."""
        self.allowed, self.attempts_left, self.failure = True, attempts, None

    def shut(self) -> None:
        """Nothing more is passed on; a call that waits is refused."""
        self.is_open = self.allowed = False
        if self._held is not None:
            self._held.grant(0)

    async def ask(self, request: Request) -> int:
        """Make one attempt at the answer, once it is paid for: with how many tokens of output. 0: it is not made."""
        self.attempts_left -= 1
        held = self._held = Held(request)
        try:
            await self.news.put(held)
            return await held.granted()
        finally:
            self._held = None

    async def tell(self, event: Mapping[str, Any]) -> None:
        """The provider sent this."""
        if event.get("type") == "message_stop":
            self.allowed = False
        await self.news.put(event)
