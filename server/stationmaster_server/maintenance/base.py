"""What a background service is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from stationmaster_server.db.caller import Caller
from stationmaster_server.maintenance.model import OperationHelp, Policy, Scope


class Options(BaseModel):
    """What a service, or an operation, can be told; each field has a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Options)
A = TypeVar("A", bound=Options)


class NotYet(Exception):
    """An operation cannot be done here and now: it is taken up again in a moment, by whichever server comes to it."""

    def __init__(self, text: str, *, give_up_after: timedelta | None = None) -> None:
        """`text` is its error if it is given up."""
        super().__init__(text)
        self.give_up_after = give_up_after


@dataclass(frozen=True, slots=True)
class Operation(Generic[A]):
    """Something that people can have a service do. `run` gets who asked and what was said; tells what came of it.

    `request_id` of who asked is that of the operation, also when it is taken up or tried again. May raise NotYet.
    """

    name: str
    description: str
    arguments: type[A]
    run: Callable[[Caller, A], Awaitable[Mapping[str, Any]]]
    for_operators: bool = False

    def help(self) -> OperationHelp:
        """What people are told of it."""
        return OperationHelp(self.name, self.description, self.for_operators, help_of(self.arguments))


class BackgroundService(ABC, Generic[S]):
    """Something that goes on in the background. `update` is one run; what it raises is a failure of that run alone.

    `time_limit` bounds a run: one that hangs is ended, and has failed. `channel`: a notification of the database on it
    is a reason to run at once, but for one that waits after a failure.
    """

    service_id: str
    description: str
    policy: Policy
    scope: Scope = Scope.EVERY_SERVER
    time_limit: timedelta = timedelta(minutes=10)
    channel: str | None = None
    options: type[S]

    async def configure(self, options: S) -> None:
        """Go by these settings; called before the first run, whenever they change, and when it is started anew."""

    @abstractmethod
    async def update(self) -> None:
        """Do what there is to do."""

    def hold(self) -> None:
        """It is paused or switched off: nobody looks, so take back what it told others. May come repeatedly."""

    async def cleanup(self) -> None:
        """Let go of everything: it ends, or is started anew."""

    def operations(self) -> tuple[Operation[Any], ...]:
        """What people can have it do, beside running at once."""
        return ()


class Routine(BackgroundService[Options]):
    """A service that is a function, which needs no settings."""

    options = Options

    def __init__(
        self,
        service_id: str,
        description: str,
        every: timedelta,
        do: Callable[[], Awaitable[object]],
        *,
        scope: Scope = Scope.EVERY_SERVER,
        channel: str | None = None,
        when_held: Callable[[], None] = lambda: None,
    ) -> None:
        self.service_id = service_id
        self.description = description
        self.policy = Policy(every)
        self.scope = scope
        self.channel = channel
        self._do = do
        self._when_held = when_held

    async def update(self) -> None:
        """Call the function."""
        await self._do()

    def hold(self) -> None:
        """Call the function for that."""
        self._when_held()


def help_of(options: type[Options]) -> dict[str, str]:
    """Each field, with what it means and its default."""
    return {
        name: f"{field.description or ''}"
        + ("; required" if field.is_required() else f"; default {field.get_default(call_default_factory=True)!r}")
        for name, field in options.model_fields.items()
    }
