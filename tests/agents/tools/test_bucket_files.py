"""The file tools where workspaces are in object storage: they say the same, and see what others put there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.files import MAX_FILE_BYTES, MAX_MATCHES, matches
from stationmaster_server.agents.tools.tool import ToolContext, ToolError
from stationmaster_server.app.storage import bucket_of
from stationmaster_server.config import load
from stationmaster_server.storage.places.s3 import S3Place

from tests.storage.places import PART, S3Site
from tests.storage.wire import between


class Agent:
    def __init__(self, site: S3Site) -> None:
        place = S3Place(bucket_of(load(None, {"storage": site.settings()}, environ={})), PART)
        self._tools = builtin_toolbox(place)
        self.context = ToolContext(uuid4(), uuid4(), uuid4(), uuid4(), "call", Path("/nonexistent"))

    async def call(self, name: str, **arguments: Any) -> str:
        return await self._tools.offered((name,))[name].run(self.context, arguments)


async def test_files_are_written_listed_read_and_found(bucket: S3Site) -> None:
    agent = Agent(bucket)
    assert await agent.call("files.list") == "(empty)"
    assert await agent.call("files.write", path="a/b.txt", content="one\nTwo\n") == "Wrote 8 bytes to a/b.txt."
    assert await agent.call("files.list") == "a/"
    assert await agent.call("files.list", recursive=True) == "a/b.txt (8 bytes)"
    assert await agent.call("files.read", path="a/b.txt") == "one\nTwo\n"
    assert await agent.call("files.search", text="two") == "a/b.txt:2: Two"
    assert await agent.call("files.search", text="two", match_case=True) == "Nothing found for 'two'."
    await agent.call("files.write", path="many", content="hit\n" * (MAX_MATCHES + 5))
    assert "only the first" in await agent.call("files.search", text="hit")
    assert await bucket.everything() == {"a/b.txt", "many"}


async def test_a_search_goes_on_past_what_is_no_text_or_is_just_being_changed(bucket: S3Site) -> None:
    async with between(bucket.endpoint) as wire:
        agent = Agent(replace(bucket, endpoint=wire.url))
        for path in ("a", "b", "c"):
            await agent.call("files.write", path=path, content=f"hit in {path}")
        store = bucket_of(load(None, {"storage": bucket.settings()}, environ={}))
        folder = f"workspaces/{agent.context.session_id}"
        await store.put(f"{folder}/b", b"\xffhit")
        wire.hold(lambda line: line.startswith("GET ") and f"{folder}/a" in line)
        searching = asyncio.create_task(agent.call("files.search", text="hit"))
        await wire.held()
        await store.put(f"{folder}/a", b"hit in another")
        wire.let_go()
        assert await searching == "c:1: hit in c"


async def test_what_is_searched_does_not_hold_the_server_up(bucket: S3Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[threading.Thread] = []

    def seen(*args: Any) -> Iterator[str]:
        looked.append(threading.current_thread())
        return matches(*args)

    monkeypatch.setattr("stationmaster_server.agents.tools.bucket_files.matches", seen)
    agent = Agent(bucket)
    await agent.call("files.write", path="a", content="hit")
    assert await agent.call("files.search", text="hit") == "a:1: hit"
    assert looked
    assert threading.current_thread() not in looked


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("files.read", {"path": "none"}, "none does not exist"),
        ("files.read", {"path": "../x"}, "must not hold .."),
        ("files.read", {"path": "."}, "a file's name is needed"),
        ("files.read", {"path": "folder"}, "is a folder"),
        ("files.list", {"path": "none"}, "none does not exist"),
        ("files.write", {"path": "a", "content": "x" * (MAX_FILE_BYTES + 1)}, "content"),
        ("files.write", {"path": "/a", "content": "x"}, "must be relative"),
        ("files.write", {"path": "folder/file/below", "content": "x"}, "is not a folder"),
    ],
)
async def test_what_goes_wrong_is_told_and_leaves_nothing(
    bucket: S3Site, name: str, arguments: dict[str, Any], why: str
) -> None:
    agent = Agent(bucket)
    await agent.call("files.write", path="folder/file", content="x")
    with pytest.raises(ToolError, match=why):
        await agent.call(name, **arguments)
    assert await bucket.everything() == {"folder/file"}


async def test_a_bucket_that_is_away_is_told_to_the_model(bucket: S3Site) -> None:
    agent = Agent(S3Site(bucket.endpoint, "missing"))
    with pytest.raises(ToolError, match="there is no such bucket"):
        await agent.call("files.write", path="a", content="x")
