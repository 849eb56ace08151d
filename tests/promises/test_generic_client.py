"""A client that knows nothing of us but an address and a key: `buf curl`, by reflection alone."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.server import RunningServer

BUF = Path(sys.executable).parent / "buf"
SESSIONS = "stationmaster.v1.SessionService"
SERVICES = {
    *(
        f"stationmaster.v1.{name}Service"
        for name in (
            "Agent",
            "Audit",
            "Credential",
            "Identity",
            "Maintenance",
            "Mcp",
            "Prompt",
            "Session",
            "Storage",
            "Task",
        )
    ),
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
REFLECTIONS = ("grpc-v1", "grpc-v1alpha")


async def buf(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What `buf curl` writes to standard output and standard error; `code`: how it is to end."""
    command = (str(BUF), "curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


class Curl:
    """Calls methods as somebody at a shell does."""

    def __init__(self, server: RunningServer, reflection: str) -> None:
        self.url = f"http://{server.target}"
        self.reflection = ("--reflect-protocol", reflection)
        self.key = ("--header", f"authorization: Bearer {server.admin_key}")

    async def call(self, method: str, request: dict[str, Any]) -> list[Any]:
        """The answers to one call, as JSON."""
        url = f"{self.url}/{SESSIONS}/{method}"
        out, _ = await buf(*self.reflection, *self.key, "--data", json.dumps(request), url)
        return list(documents(out))


def documents(text: str) -> Iterator[Any]:
    """JSON documents, one after another."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document
        while position < len(text) and text[position].isspace():
            position += 1


@pytest.mark.parametrize("reflection", REFLECTIONS)
async def test_reflection_lists_what_is_served(server: RunningServer, reflection: str) -> None:
    curl = Curl(server, reflection)
    out, _ = await buf(*curl.reflection, "--list-services", curl.url)
    assert set(out.split()) == SERVICES
    out, _ = await buf(*curl.reflection, "--list-methods", curl.url)
    assert {f"{SESSIONS}/SendMessage", "grpc.health.v1.Health/Check"} <= set(out.split())


@pytest.mark.parametrize("reflection", REFLECTIONS)
async def test_a_conversation_needs_nothing_but_an_address_and_a_key(server: RunningServer, reflection: str) -> None:
    curl = Curl(server, reflection)
    (session,) = await curl.call("CreateSession", {"session": {"spec": {"model": "demo"}}})
    assert session["state"] == "SESSION_STATE_ACTIVE"
    batches = await curl.call("SendMessage", {"session": session["name"], "text": "/say 200"})
    events = [event for batch in batches for event in batch.get("events", ())]
    assert len(batches) > 1, "the reply streams"
    said = "".join(event["textDelta"]["text"] for event in events if "textDelta" in event)
    assert said.split() == [f"word{number}" for number in range(1, 201)]
    assert events[-1]["turnFinished"]["state"] == "TURN_STATE_COMPLETED"
    sequences = [int(event["sequence"]) for event in events]
    assert sequences == list(range(sequences[0], sequences[0] + len(events)))
    (messages,) = await curl.call("ListMessages", {"parent": session["name"]})
    assert [message["role"] for message in messages["messages"]] == ["MESSAGE_ROLE_USER", "MESSAGE_ROLE_ASSISTANT"]
    assert messages["messages"][1]["parts"][0]["text"] == said


async def test_an_error_is_told_with_its_details(server: RunningServer) -> None:
    curl = Curl(server, "grpc-v1")
    url = f"{curl.url}/{SESSIONS}/GetSession"
    _, err = await buf(*curl.reflection, *curl.key, "--data", '{"name": "sessions/1"}', url, code=3 << 3)
    told = json.loads(err)
    assert told["code"] == "invalid_argument"
    assert {"ErrorInfo", "BadRequest", "RequestInfo"} <= {
        detail["type"].rpartition(".")[2] for detail in told["details"]
    }


async def test_without_a_key_the_methods_are_listed_and_not_answered(server: RunningServer) -> None:
    curl = Curl(server, "grpc-v1")
    _, err = await buf(*curl.reflection, f"{curl.url}/{SESSIONS}/ListSessions", code=16 << 3)
    assert "authorization" in json.loads(err)["message"]
