"""Answers what the turns of a chat ask permission for: its own turn, and turns that wait before it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

from stationmaster_client.cli import resolve
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.terminal import Left

if TYPE_CHECKING:
    from collections.abc import Callable

    from stationmaster.v1 import event_pb2

    from stationmaster_client.cli.command import Run

LOOK_EVERY_SECONDS = 1.0


class Permissions(StrEnum):
    """What to do when a tool asks for permission."""

    ASK = "ask"
    ALLOW = "allow"
    DENY = "deny"
    STOP = "stop"


class Answers:
    """Gives the answers that the policy says, each to one request of a session."""

    def __init__(self, run: Run, session: str, policy: Permissions) -> None:
        self._run = run
        self._session = session
        self._policy = policy

    async def own(self, requested: event_pb2.PermissionRequested, cancel: Callable[[], None]) -> None:
        """Answer what the turn asks; `cancel` when the person leaves the question. Raises CommandError as `_answer`."""
        limit = requested.limit if requested.HasField("limit") else None
        try:
            await self._answer(requested.permission_request, requested.call, limit)
        except Left:
            cancel()

    async def earlier(self, own_turn: str = "") -> None:
        """Answer what other turns of the session wait for. Raises CommandError when somebody else has to."""
        from stationmaster_client.errors import FailedPrecondition

        listing = self._run.client.permissions.list(self._session, filter="state = PENDING")
        for request in [item async for item in listing]:
            if request.turn == own_turn:
                continue
            limit = request.limit if request.HasField("limit") else None
            try:
                await self._answer(request.name, request.call, limit)
            except Left:
                raise self._unanswered(request.name, request.call, limit) from None
            except FailedPrecondition as error:
                if error.reason != "PERMISSION_ALREADY_RESOLVED":
                    raise
            else:
                self._run.out.note(f"answered {request.call.tool or request.limit.limit} of a turn before this one")

    async def earlier_while_queued(self, own_turn: Callable[[], str]) -> None:
        """Go on answering what the turns before this one ask, until cancelled. Raises as `earlier`."""
        from stationmaster_client.errors import Unavailable

        while True:
            with suppress(Unavailable):  # The stream of the turn tells of it, and how long it is waited for.
                await self.earlier(own_turn())
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _answer(self, name: str, call: event_pb2.ToolCall, limit: event_pb2.LimitReached | None) -> None:
        """Raises CommandError when nobody here may answer, Left when the person does not."""
        from stationmaster_client.cli.answer import ask_permission

        permissions = self._run.client.permissions
        # Whoever allows all tools has not said that everything may be spent.
        if self._policy is Permissions.ALLOW and limit is None:
            await permissions.allow(name)
        elif self._policy in (Permissions.ALLOW, Permissions.DENY):
            await permissions.deny(name)
        elif self._policy is Permissions.ASK:
            await ask_permission(self._run, name, call, limit=limit)
        else:
            raise self._unanswered(name, call, limit)

    def _unanswered(self, name: str, call: event_pb2.ToolCall, limit: event_pb2.LimitReached | None) -> CommandError:
        what = call.tool if limit is None else f"the turn, at {limit.limit},"
        return CommandError(
            f"{what} waits for permission. Answer with: stationmaster permissions allow {name}\n"
            f"then go on with: stationmaster chat {resolve.short(self._session)} "
            "(--permissions allow or deny answers what waits there first)",
            ExitCode.CONFLICT,
        )
