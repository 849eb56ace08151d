"""stationmaster chat: talk to an agent."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.chat_permissions import Answers, Permissions
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.options import piped
from stationmaster_client.cli.output import plain
from stationmaster_client.cli.terminal import Left, ask, on_interrupt
from stationmaster_client.cli.transcript import Transcript

if TYPE_CHECKING:
    from stationmaster.v1 import event_pb2, session_pb2

    from stationmaster_client.sources import TurnStream

PATIENCE = timedelta(minutes=5)


async def chat(
    run: Run,
    session: Annotated[
        str,
        typer.Argument(help="A session to go on with: its id, the end of it, or - for the last.", metavar="[SESSION]"),
    ] = "",
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Say this, print the answer, end. - reads it.")
    ] = None,
    agent: Annotated[str, typer.Option("--agent", "-a", help="A new session of this agent.")] = "",
    model: Annotated[
        str, typer.Option("--model", help="A new session of this model (demo, if nothing is named), with all tools.")
    ] = "",
    permissions: Annotated[
        Permissions | None,
        typer.Option(
            "--permissions", help="When a tool asks: ask here (at a terminal the default), allow, deny, or stop."
        ),
    ] = None,
) -> None:
    """Talk to an agent. Ctrl-C cancels its turn, a second one leaves; Ctrl-D ends."""
    named = {"SESSION": session, "--agent": agent, "--model": model}
    if len(given := [option for option, value in named.items() if value]) > 1:
        raise CommandError(f"{' and '.join(given)} exclude each other: each says whom to talk to")
    policy = permissions or (Permissions.ASK if run.out.interactive else Permissions.STOP)
    text = piped() if message == "-" else message
    if text is not None and not text.strip():
        raise CommandError("there is nothing to say: the message is empty")
    if text is None and (run.out.as_json or not sys.stdin.isatty()):
        raise CommandError("there is no terminal to talk at: say something with -m (-m - reads it from a pipe)")
    found = await _session(run, session, agent, model)
    conversation = Conversation(run, found.name, policy)
    if text:
        _judge(run, await conversation.turn(text))
        return
    run.out.note(f"{found.name} · {found.agent or found.spec.model} · Ctrl-C cancels a turn, Ctrl-D ends")
    while True:
        try:
            text = ask("\n» ").strip()
        except Left:
            run.out.note(f"\nGo on later: stationmaster chat {resolve.short(found.name)}")
            return
        if text:
            await conversation.turn(text)


async def _session(run: Run, session: str, agent: str, model: str) -> session_pb2.Session:
    if session:
        return await run.client.sessions.get(await resolve.session(run.client, session))
    if agent:
        return await run.client.sessions.create(agent)
    return await run.client.sessions.create(model=model or "demo", tools=["*"])


class Conversation:
    """Turns of one session, shown as they run."""

    def __init__(self, run: Run, session: str, policy: Permissions) -> None:
        self._run = run
        self._session = session
        self._answers = Answers(run, session, policy)
        self._cancelling: asyncio.Task[None] | None = None

    async def turn(self, text: str) -> event_pb2.TurnFinished | None:
        """Say something, show the answer and return how it ended. Raises CommandError at an unanswered permission."""
        # A turn that waits for an answer would hold up this one: nothing is said before it has one.
        await self._answers.earlier()
        transcript = Transcript(self._run.out.console, self._run.out.notes)
        stream = self._run.client.sessions.send(
            self._session, text, patience=PATIENCE, on_interruption=transcript.interrupted
        )
        with on_interrupt(lambda: self._cancel(stream, transcript)):
            try:
                async with stream:
                    return await self._follow(stream, transcript)
            finally:
                transcript.end_line()
                if self._cancelling is not None:
                    self._cancelling.cancel()

    async def _follow(self, stream: TurnStream, transcript: Transcript) -> event_pb2.TurnFinished | None:
        finished: event_pb2.TurnFinished | None = None
        queued: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                async for event in stream:
                    self._show(event, transcript)
                    if event.HasField("permission_requested"):
                        transcript.end_line()
                        await self._answers.own(event.permission_requested, lambda: self._cancel(stream, transcript))
                    elif event.HasField("turn_finished"):
                        finished = event.turn_finished
                    if event.HasField("turn_started") and queued is not None:
                        queued.cancel()
                    elif event.HasField("turn_queued") and event.turn_queued.position:
                        queued = group.create_task(self._answers.earlier_while_queued(lambda: stream.turn))
                if queued is not None:
                    queued.cancel()  # a turn that was cancelled in the queue never started
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return finished

    def _show(self, event: event_pb2.Event, transcript: Transcript) -> None:
        if self._run.out.as_json:
            self._run.out.json(event, line=True)
        else:
            transcript.show(event)

    def _cancel(self, stream: TurnStream, transcript: Transcript) -> None:
        """Cancel the turn; its stream then ends by itself."""
        transcript.line("cancelling; once more leaves", "yellow")
        if stream.turn and self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel_turn(stream.turn))

    async def _cancel_turn(self, turn: str) -> None:
        from stationmaster_client import StationmasterError

        try:
            await self._run.client.sessions.cancel(turn)
        except StationmasterError as error:
            if error.reason != "TURN_FINISHED":
                self._run.out.note(f"not cancelled: {error}", "yellow")
        finally:
            self._cancelling = None


def _judge(run: Run, finished: event_pb2.TurnFinished | None) -> None:
    """A turn that did not come to its end is a failure of a command that says one thing."""
    from stationmaster.v1 import event_pb2

    if finished is None or finished.state == event_pb2.TURN_STATE_COMPLETED:
        return
    codes = {
        event_pb2.TURN_STATE_LIMITED: ExitCode.EXHAUSTED,
        event_pb2.TURN_STATE_CANCELLED: ExitCode.INTERRUPTED,
    }
    code = codes.get(finished.state, ExitCode.UNEXPECTED)
    if run.out.as_json:
        state = plain(event_pb2.TurnState.Name(finished.state), "TURN_STATE")
        raise CommandError(f"the turn ended {state}: {finished.message} ({finished.reason})", code)
    raise typer.Exit(code)  # The transcript has told why.
