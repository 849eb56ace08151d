"""One command line of the SDK that lives, and the conversation that it holds."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    HookMatcher,
    McpSdkServerConfig,
    MirrorErrorMessage,
    ResultMessage,
)
from claude_agent_sdk.types import HookEvent

from stationmaster_server.agents.runtimes.claude import command
from stationmaster_server.agents.runtimes.claude.command import Asking, Place
from stationmaster_server.agents.runtimes.claude.desk import Desk, offered_tools
from stationmaster_server.agents.runtimes.claude.line import Line
from stationmaster_server.agents.runtimes.claude.names import SERVER, Names
from stationmaster_server.agents.runtimes.claude.process import Process
from stationmaster_server.agents.runtimes.claude.store import Transcripts
from stationmaster_server.agents.runtimes.claude.transcript import Said
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.mcp.offering import tool_server

_FOREVER = 7 * 24 * 3600.0
_CLOSING = 15.0

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Live:
    """What `start` made. `said` is what its conversation says; `idle_since` when its last turn ended."""

    place: Place
    asking: Asking
    offered: Mapping[str, Tool]
    names: Names
    desk: Desk
    process: Process
    client: ClaudeSDKClient
    line: Line
    said: list[Said]
    idle_since: float = 0.0
    doomed: bool = False
    """Its session has ended: it is not kept."""
    _listening: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it runs and is listened to."""
        return self.process.alive and self._listening is not None and not self._listening.done()

    def fits(self, asking: Asking, offered: Mapping[str, Tool], said: Sequence[Said]) -> bool:
        """Whether it can go on with this conversation: it lives, and knows all of it and nothing more."""
        same = self.asking == asking and self.offered == offered
        return same and self.alive and bool(said) and self.said[-len(said) :] == list(said)

    async def say(self, text: str) -> None:
        """A message of the user."""
        message = {
            "type": "user",
            "message": {"role": "user", "content": [{"type": "text", "text": text}]},
            "parent_tool_use_id": None,
            "uuid": str(uuid4()),
        }

        async def once() -> AsyncIterator[dict[str, Any]]:
            yield message

        await self.client.query(once())

    async def begin(self) -> None:
        """Start it, and listen to it from then on. Raises ClaudeSDKError and what the SDK raises besides."""
        await self.client.connect()
        self._listening = asyncio.create_task(self._listen(), name="listen to a command line")

    async def _listen(self) -> None:
        """Of what it says only the end of a turn is news: the answer itself has come by its line."""
        try:
            async for message in self.client.receive_messages():
                match message:
                    case ResultMessage():
                        await self.line.news.put(message)
                    case MirrorErrorMessage():
                        _log.warning("the transcript of session %s lags: %s", self.place.session_id, message.error)
        except ClaudeSDKError as error:
            _log.debug("the command line of session %s is gone: %s", self.place.session_id, error)
        except Exception:
            _log.exception("the command line of session %s is not understood", self.place.session_id)
            await self.line.news.put(None)
            raise
        await self.line.news.put(None)

    async def end(self) -> None:
        """End the process and whatever it left."""
        closing = asyncio.create_task(self._close(), name="end a command line")
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            # Whoever waited is told to stop; the process ends all the same.
            await asyncio.wait((closing,), timeout=_CLOSING)
            raise

    async def _close(self) -> None:
        self.line.shut()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self.process.close()
        try:
            async with asyncio.timeout(_CLOSING):
                await self.client.disconnect()
        except (ClaudeSDKError, TimeoutError, OSError):
            _log.exception("the client of session %s did not close", self.place.session_id)
        await asyncio.to_thread(shutil.rmtree, self.place.home, ignore_errors=True)


async def start(
    place: Place,
    asking: Asking,
    offered: Mapping[str, Tool],
    environment: Mapping[str, str],
    line: Line,
    transcripts: Transcripts,
    said: list[Said],
    *,
    resume: bool,
) -> Live:
    """A command line that is ready to be spoken to. Raises ClaudeSDKError and what the SDK raises besides."""
    names, desk = Names(offered), Desk()
    process = Process(command.command(place, asking, resume=resume), environment, place.workspace)
    tools = tool_server(SERVER, offered_tools(offered, names), desk.call)
    server = McpSdkServerConfig(type="sdk", name=SERVER, instance=tools)
    behind_calls = HookMatcher(hooks=[desk.before_asking], timeout=_FOREVER, on_failure="block")
    options = ClaudeAgentOptions(
        mcp_servers={SERVER: server},
        can_use_tool=desk.may_run,
        hooks=cast("dict[HookEvent, list[HookMatcher]]", {"PostToolBatch": [behind_calls]}),
        session_store=transcripts,
        verbatim_prompts=True,
        env={"CLAUDE_CONFIG_DIR": str(place.home)},
        cwd=place.workspace,
    )
    client = ClaudeSDKClient(options, transport=process)
    live = Live(place, asking, offered, names, desk, process, client, line, said)
    try:
        await live.begin()
    except BaseException:
        with suppress(asyncio.CancelledError):
            await live.end()
        raise
    return live
