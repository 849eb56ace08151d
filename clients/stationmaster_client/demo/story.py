"""The story that the demo tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from rich.console import Console
from stationmaster.v1 import agent_pb2, event_pb2

from stationmaster_client.cli.transcript import Transcript
from stationmaster_client.client import Client
from stationmaster_client.demo.acts import ACTS
from stationmaster_client.demo.check import Evidence, check, check_tools
from stationmaster_client.demo.departures import CHANGE, READ, SERVER, Departures
from stationmaster_client.demo.server import DemoFailure, Server
from stationmaster_client.demo.stage import Programme, Stage
from stationmaster_client.errors import StationmasterError

TOOLS = ("files.list", "files.read", "files.write", "files.search", "math.evaluate", "time.now")
FILE, LINE = "timetable.txt", "07:15 Aurora, platform 4"
TALK = (
    f"write {LINE} to {FILE}",
    f"read {FILE}",
    "what is 17*60 + 42",
)
AGENT = "agents/clerk"
WORDS = 100
KILL_AFTER_WORDS = 25
LONG = f"/slow 20\n/say {WORDS}"


class Story:
    """The acts, in order; what was seen is kept for the check at the end."""

    def __init__(self, console: Console, server: Server) -> None:
        self._console = console
        self._programme = Programme(console)
        self._server = server
        self._seen: list[event_pb2.Event] = []
        self._seen_before_kill = 0
        self._said: list[str] = []
        self._departures = Departures(server.folder)
        self._restart: asyncio.Task[None] | None = None

    async def tell(self) -> bool:
        """Tell it all; whether every promise was kept."""
        try:
            return await self._tell()
        finally:
            if self._restart is not None:
                self._restart.cancel()

    async def _tell(self) -> bool:
        began = time.monotonic()
        self._programme.act("A server with a PostgreSQL of its own")
        took = await self._server.start()
        self._programme.fact(
            f"stationmaster-server serve is SERVING on 127.0.0.1:{self._server.port} after {took:.1f} s"
        )
        async with Client(self._server.connection) as client:
            session = await self._prepare(client)
            self._programme.act("A conversation that uses tools on real files")
            for text in TALK:
                await self._turn(client, session, text)
            for held in self._written():
                self._programme.fact(f"on disk, {FILE} holds: {held}")
            self._programme.act("A tool of an MCP server that asks before it changes something")
            await self._turn(client, session, READ)
            await self._turn(client, session, CHANGE)
            self._programme.act("A crash in the middle of an answer")
            await self._turn(client, session, LONG, during=self._kill_in_time)
            if self._restart is None:
                raise DemoFailure("the answer was over before the server was killed")
            await self._restart
            await self._turn(client, session, READ)
            self._programme.act("Was anything lost?")
            self._programme.fact("event 1 is the session's creation; the conversation begins with event 2")
            await self._compare(client, session)
            stage = self._stage(client, session)
            for service, play in ACTS:
                await self._play(stage, service, play)
        return self._close(time.monotonic() - began)

    def _stage(self, client: Client, session: str) -> Stage:
        server = self._server
        return Stage(
            client, server.folder, session, AGENT, server.pid, server.model_folder is not None, self._programme
        )

    async def _play(self, stage: Stage, service: str, play: Callable[[Stage], Awaitable[None]]) -> None:
        """An act that breaks off or shows nothing is a promise not kept; the others are played all the same."""
        shown = self._programme.shown(service)
        try:
            await play(stage)
            if self._programme.shown(service) == shown:
                raise DemoFailure("nothing was shown")
        except (DemoFailure, StationmasterError) as error:
            self._programme.check(service, "what belongs to it can be shown", False, str(error))
        except Exception as error:  # noqa: BLE001 - an answer that no act expects is not what was promised either
            detail = f"{type(error).__name__}: {error}"
            self._programme.check(service, "what belongs to it can be shown", False, detail)

    async def _compare(self, client: Client, session: str) -> None:
        evidence = await self._evidence(client, session)
        for one in check(evidence):
            self._programme.check("Session", one.promise, one.kept, one.detail)
        for service, one in check_tools(evidence):
            self._programme.check(service, one.promise, one.kept, one.detail)

    async def _prepare(self, client: Client) -> str:
        self._programme.act("An MCP server, an agent and a session")
        board = await self._departures.register(client)
        self._programme.fact(
            f"mcpServers/{SERVER} is a process that was written with the mcp library; it has {board.tools} tools"
        )
        policies = [agent_pb2.ToolPolicy(pattern=tool, effect=_effect(ask=tool == "files.write")) for tool in TOOLS]
        spec = agent_pb2.AgentSpec(
            model="demo",
            text="You are a helpful clerk.",
            tools=TOOLS,
            tool_policies=policies,
            mcp_servers=[SERVER],
        )
        agent = await client.agents.create(AGENT.removeprefix("agents/"), spec, display_name="The station's clerk")
        self._programme.fact(f"{agent.name} runs the model demo, with {len(TOOLS)} tools and those of the board")
        self._programme.fact(
            "files.write needs permission by its rule; what changes the board, because no rule allows it"
        )
        session = await client.sessions.create(agent.name, display_name="The demo")
        self._programme.fact(session.name)
        return session.name

    async def _turn(
        self,
        client: Client,
        session: str,
        text: str,
        during: Callable[[Transcript, event_pb2.Event], None] | None = None,
    ) -> None:
        """Say something, show the answer, give the permissions it asks for, and keep every event."""
        self._console.print(f"\n» {text}", style="bold cyan")
        self._said.append(text)
        transcript = Transcript(self._console, fold=True)
        async with client.sessions.send(session, text, on_interruption=transcript.interrupted) as events:
            async for event in events:
                self._seen.append(event)
                transcript.show(event)
                if event.HasField("permission_requested"):
                    await self._permit(client, transcript, event.permission_requested)
                if during is not None:
                    during(transcript, event)
        transcript.end_line()
        end = self._seen[-1].turn_finished
        if end.state != event_pb2.TURN_STATE_COMPLETED:
            raise DemoFailure(f"the turn ended {event_pb2.TurnState.Name(end.state)}: {end.reason} {end.message}")

    async def _permit(self, client: Client, transcript: Transcript, asked: event_pb2.PermissionRequested) -> None:
        transcript.line(f"  ? {asked.call.tool} asks for permission; the turn waits in the database", "bold yellow")
        if asked.call.tool.startswith(f"{SERVER}."):
            self._departures.asked()
        transcript.line("  ✎ the demo answers for you: allow once", "yellow")
        await client.permissions.allow(asked.permission_request)

    def _written(self) -> list[str]:
        return [file.read_text().strip() for file in self._server.folder.rglob(FILE)]

    def _kill_in_time(self, transcript: Transcript, event: event_pb2.Event) -> None:
        """Kill the server once enough of the answer was seen, and start it again meanwhile."""
        said = sum(len(seen.text_delta.text.split()) for seen in self._seen if seen.turn == event.turn)
        if self._restart is not None or said < KILL_AFTER_WORDS:
            return
        self._seen_before_kill = len(self._seen)
        transcript.line(f"☠ kill -9 {self._server.pid}, after event {event.sequence}", "bold red")
        self._server.kill()
        self._restart = asyncio.create_task(self._start_again(transcript))

    async def _start_again(self, transcript: Transcript) -> None:
        took = await self._server.start()
        transcript.line(
            f"✓ started again on the same data, SERVING after {took:.1f} s (pid {self._server.pid})", "green"
        )

    async def _evidence(self, client: Client, session: str) -> Evidence:
        newest = (await client.sessions.get(session)).last_sequence
        replay: list[event_pb2.Event] = []
        async with client.sessions.watch(session) as events:
            async for event in events:
                replay.append(event)
                if event.sequence >= newest:
                    break
        messages = [message async for message in client.sessions.messages(session)]
        return Evidence(
            seen=self._seen,
            seen_before_kill=self._seen_before_kill,
            killed=self._server.killed,
            newest=newest,
            replay=replay,
            messages=messages,
            said=self._said,
            words=WORDS,
            departures=self._departures,
            written=self._written(),
            to_write=LINE,
        )

    def _close(self, seconds: float) -> bool:
        self._programme.act("What this has shown")
        self._console.print(self._programme.table())
        self._console.print()
        good = self._programme.kept
        if good:
            self._console.print(f"Nothing was lost. All of this took {seconds:.0f} s.", style="bold green")
            self._console.print("Next: make serve, and in another terminal .venv/bin/stationmaster chat", style="dim")
        return good


def _effect(*, ask: bool) -> agent_pb2.ToolEffect.ValueType:
    return agent_pb2.TOOL_EFFECT_ASK if ask else agent_pb2.TOOL_EFFECT_ALLOW
