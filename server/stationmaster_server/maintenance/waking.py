"""When a runner looks again: after its pause, when it is told to, or when somebody asks for a run."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason, Unavailable
from stationmaster_server.maintenance.model import Settings, service_name

_JITTER = 0.1


class RunFailed(Exception):
    """A run that somebody asked for failed; the text says why."""


class RunsElsewhere(Exception):
    """Another server runs the service at the moment: ask again later."""


class Waking:
    """Wakes one runner, and answers those who ask for a run."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._told = False
        self._coming: list[asyncio.Future[None]] = []
        self._asking: list[asyncio.Future[None]] = []
        self._ended = False

    @property
    def asked(self) -> bool:
        """Whether somebody waits for this look."""
        return bool(self._asking)

    def wake(self) -> None:
        """End the pause, whatever it is for."""
        self._told = True
        self._event.set()

    def notify(self) -> None:
        """There is something to do: end the pause, unless it is one that must be kept."""
        self._event.set()

    async def ask(self) -> None:
        """Wait for a run that begins after this. Raises what `answer` is given; Unavailable when none is to come."""
        if self._ended:
            raise _stopping()
        asking = asyncio.get_running_loop().create_future()
        self._coming.append(asking)
        self.wake()
        await asking

    def begin(self) -> None:
        """A look begins, which answers all who asked until now."""
        self._event.clear()
        self._told = False
        self._asking, self._coming = self._coming, []

    def answer(self, error: Exception | None) -> None:
        """Tell those who wait for this look how it ended; of several answers the first counts."""
        for asking in self._asking:
            if asking.done():  # nobody waits any more
                continue
            if error is None:
                asking.set_result(None)
            else:
                asking.set_exception(error)
        self._asking = []

    def end(self) -> None:
        """There is no further look."""
        self._ended = True
        self._asking += self._coming
        self._coming = []
        self.answer(_stopping())

    async def wait(self, pause: timedelta | None, *, keep: bool = False) -> None:
        """Until the pause is over, give or take a tenth, or there is something to look at; None: only the latter.

        `keep`: it is a pause after a failure, which notifications do not end.
        """
        seconds = None if pause is None else pause.total_seconds() * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
                while keep and not self._told:
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            return


def _stopping() -> Unavailable:
    return Unavailable(Reason.SERVER_STOPPING, "this server stops; another one runs the service")


def held(service_id: str, settings: Settings) -> FailedPrecondition | None:
    """Why a service is not to be run now; None: it may be."""
    if settings.runs:
        return None
    name = service_name(service_id)
    if settings.enabled:
        why = f": {settings.pause_reason}" if settings.pause_reason else ""
        how, advice = f"is paused{why}", "resume it first"
    else:
        how, advice = "is switched off", "enable it first"
    return FailedPrecondition(
        Reason.SERVICE_HELD, f"{name} {how}; {advice}", PreconditionViolation("BACKGROUND_SERVICE", name, advice)
    )
