"""Turns: say something to an agent, wait for what it comes to, end it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from uuid import uuid4

import anyio
from pydantic import Field
from stationmaster.v1 import session_pb2

from stationmaster_client.errors import StationmasterError
from stationmaster_client.mcp_server.answer import RequestId, SessionName
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.following import PATIENCE, Follower, Turn
from stationmaster_client.mcp_server.tool import changes, reads
from stationmaster_client.names import full
from stationmaster_client.sources import TurnStream

WaitSeconds = Annotated[
    float,
    Field(ge=0, le=3600, description="How long to wait at most; then the turn goes on, and wait_for_turn waits again."),
]
_BUSY = {
    "queue": session_pb2.BUSY_POLICY_QUEUE,
    "reject": session_pb2.BUSY_POLICY_REJECT,
    "interrupt": session_pb2.BUSY_POLICY_INTERRUPT,
    "rollback": session_pb2.BUSY_POLICY_ROLLBACK,
}
_CANCEL_LIMIT_SECONDS = 10


@changes("Send a message", destructive=True, open_world=True)
async def send_message(
    call: Call,
    session: SessionName,
    text: Annotated[str, Field(min_length=1, description="What to say to the agent.")],
    wait_seconds: WaitSeconds = 45,
    if_busy: Annotated[
        Literal["queue", "reject", "interrupt", "rollback"],
        Field(description="While another turn runs: wait for it, fail, stop it and keep what it said, or undo it."),
    ] = "queue",
    cancel_turn_with_request: Annotated[
        bool, Field(description="Should this call be cancelled, cancel the turn as well; otherwise it goes on.")
    ] = False,
    request_id: RequestId = "",
) -> Turn:
    """Send a message to a session's agent and wait for its answer.

    Answers with the agent's last message once its turn has ended; earlier if a tool of the agent waits for permission
    (then call resolve_permission, and wait_for_turn), or if the time is over (then call wait_for_turn).
    """
    chosen = request_id or str(uuid4())
    follower = Follower(call, full("sessions", session), request_id=chosen)
    stream = _send(call, session, text, if_busy, chosen)
    try:
        async with stream as events:
            turn = await follower.follow(events, wait_seconds)
            turn.turn = turn.turn or stream.turn
            return turn
    except asyncio.CancelledError:
        if cancel_turn_with_request:
            with anyio.move_on_after(_CANCEL_LIMIT_SECONDS, shield=True):
                await _cancel(call, stream, _send(call, session, text, if_busy, chosen))
        raise
    except StationmasterError as error:
        if error.code.name == "UNAVAILABLE":
            error.message += f" To repeat this call without sending twice, give request_id={chosen!r}."
        raise


def _send(call: Call, session: str, text: str, if_busy: str, request_id: str) -> TurnStream:
    return call.client.sessions.send(
        session, text, busy_policy=_BUSY[if_busy], request_id=request_id, patience=PATIENCE
    )


async def _cancel(call: Call, stream: TurnStream, again: TurnStream) -> None:
    """Cancel the turn of a stream, which is known once the stream, or the same sent again, has begun."""
    try:
        async with again as events:
            if not stream.turn:
                await anext(aiter(events))
            await call.client.sessions.cancel(stream.turn or again.turn)
    except StationmasterError:
        # It has ended already, or nobody can be reached: nobody is there to be told, either.
        return


@reads("Wait for a turn")
async def wait_for_turn(
    call: Call,
    turn: Annotated[str, Field(description="sessions/{id}/turns/{id}, from send_message or get_session.")],
    wait_seconds: WaitSeconds = 45,
) -> Turn:
    """Wait until a turn has ended or asks for permission, and show what it came to. An ended one is shown at once."""
    found = await call.client.sessions.turn(turn)
    session = turn.partition("/turns/")[0]
    follower = Follower(call, session, turn=found.name)
    after = max(0, found.first_sequence - 1)
    async with call.client.sessions.watch(session, after, patience=PATIENCE) as events:
        return await follower.follow(events, wait_seconds)


@changes("Cancel a turn", destructive=True, idempotent=True)
async def cancel_turn(
    call: Call,
    turn: Annotated[str, Field(description="sessions/{id}/turns/{id}; or sessions/{id} for the turn that runs in it.")],
) -> Turn:
    """Stop a turn. What the agent said so far is kept."""
    session = full("sessions", turn).partition("/turns/")[0]
    name = turn if "/turns/" in turn else (await call.client.sessions.get(session)).current_turn
    if not name:
        return Turn(session=session, turn="", state="completed", message="no turn runs in this session")
    await call.client.sessions.cancel(name)
    return await wait_for_turn(call, name, 10)
