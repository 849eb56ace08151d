"""Waits for permission requests at a terminal and has them answered, whatever happens to the connection meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stationmaster_client import errors
from stationmaster_client.cli import resolve
from stationmaster_client.cli.answer import ask_permission
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.permissions import say
from stationmaster_client.cli.terminal import Left

if TYPE_CHECKING:
    from stationmaster.v1 import session_pb2

LOOK_EVERY_SECONDS = 1.0


class Watch:
    """Asks about one request at a time, each time by a fresh list: others answer as well, and deadlines pass."""

    def __init__(self, run: Run, parent: str) -> None:
        self._run = run
        self._parent = parent
        self._asked: set[str] = set()
        self._waiting: dict[str, str] = {}
        """The tools of requests that nobody has been asked about here yet."""
        self._agents: dict[str, str] = {}
        self._lost = False

    async def until_left(self) -> None:
        """Go on until the person leaves."""
        self._run.out.note("Waiting for permission requests; Ctrl-C ends.")
        while True:
            try:
                quiet = not await self._round()
            except errors.Unavailable:
                self._tell_lost()
                quiet = True
            except Left:
                return
            if quiet:
                await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _round(self) -> bool:
        """Ask about the oldest request; whether there was one."""
        pending = [item async for item in self._run.client.permissions.list(self._parent, filter="state = PENDING")]
        if self._lost:
            self._run.out.note("↻ connected again", "green")
            self._lost = False
        new = [request for request in pending if request.name not in self._asked]
        self._tell_answered_elsewhere(new)
        if self._run.out.as_json:
            for request in new:
                self._asked.add(request.name)
                self._run.out.json(request, line=True)
            return False
        if not new:
            return False
        await self._ask(new)
        return True

    async def _ask(self, new: Sequence[session_pb2.PermissionRequest]) -> None:
        request = new[0]
        self._waiting = {other.name: other.call.tool or other.limit.limit for other in new[1:]}
        about = await self._about(request, len(new) - 1)
        # One whose answer did not arrive is asked about again.
        answered = await ask_permission(self._run, request.name, request.call, about, request.limit)
        self._asked.add(request.name)
        if answered is not None:
            say(self._run, answered)

    async def _about(self, request: session_pb2.PermissionRequest, behind: int) -> str:
        session = request.name.partition("/permissionRequests/")[0]
        if session not in self._agents:
            found = await self._run.client.sessions.get(session)
            agent = found.agent.removeprefix("agents/") or found.spec.model
            known = ", ".join(part for part in (found.display_name, agent) if part)
            self._agents[session] = f"{resolve.brief(session)} ({known})"
        parts = [self._agents[session], left(request)]
        if behind:
            parts.append(f"{behind} more behind it")
        return " · ".join(parts)

    def _tell_answered_elsewhere(self, new: Sequence[session_pb2.PermissionRequest]) -> None:
        for name in self._waiting.keys() - {request.name for request in new}:
            tool = self._waiting.pop(name)
            self._run.out.note(f"  {tool} of {_session_of(name)} needs no answer any more", "yellow")

    def _tell_lost(self) -> None:
        if not self._lost:
            self._run.out.note("⚡ connection lost, trying again", "yellow")
        self._lost = True


def _session_of(name: str) -> str:
    return resolve.brief(name.partition("/permissionRequests/")[0])


def left(request: session_pb2.PermissionRequest) -> str:
    """How long an answer still counts."""
    if not request.HasField("expire_time"):
        return "no deadline"
    seconds = (request.expire_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} left"
    return f"{max(seconds, 0):.0f} s left"
