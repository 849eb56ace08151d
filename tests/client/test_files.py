"""Files by the client: transfers over broken connections and restarts, and what was changed on the way."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2
from stationmaster_client import Client, Interruption, SyncClient, errors
from stationmaster_client.files import NONE

from tests.client.relay import relaying
from tests.client.restarting import RestartingServer
from tests.fixtures.server import RunningServer, StartServer
from tests.waiting import until

DATA = hashlib.shake_256(b"a file").digest(6 * 1024 * 1024 + 4321)
SPEC = agent_pb2.AgentSpec(model="demo")


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        yield client


@pytest_asyncio.fixture
async def session(client: Client) -> str:
    """A session."""
    return (await client.sessions.create(spec=SPEC)).name


async def test_a_file_goes_up_and_down_moves_and_goes(client: Client, session: str, tmp_path: Path) -> None:
    local = tmp_path / "file"
    local.write_bytes(DATA)
    told: list[tuple[int, int]] = []
    file = await client.files.upload(session, "a/b", local, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(DATA), len(DATA))
    assert file == await client.files.stat(session, "a/b")
    assert await client.files.read(session, "a/b") == DATA
    assert [each.path async for each in client.files.list(session)] == ["a"]
    assert [each.path async for each in client.files.list(session, "a", filter='name = "b*"')] == ["a/b"]
    assert (await client.files.move(session, "a/b", "c")).path == "c"
    assert (await client.files.workspace(session)).used_bytes == len(DATA)
    me = (await client.whoami()).user.name
    assert (await client.files.usage(me)).used_bytes == len(DATA)
    await client.files.delete(session, "c")
    with pytest.raises(errors.NotFound):
        await client.files.read(session, "c")


async def test_what_the_tools_of_an_agent_write_counts_as_well(client: Client) -> None:
    rule = agent_pb2.ToolPolicy(pattern="files.*", effect=agent_pb2.TOOL_EFFECT_ALLOW)
    spec = agent_pb2.AgentSpec(model="demo", tools=["files.write"], tool_policies=[rule])
    session = (await client.sessions.create(spec=spec)).name
    await client.sessions.ask(session, "write hello to notes.txt")
    me = (await client.whoami()).user.name

    async def counted() -> bool:
        return (await client.files.usage(me)).used_bytes == len("hello")

    await until(counted)
    assert (await client.files.workspace(session)).used_bytes == len("hello")


async def test_bytes_and_open_files_are_uploaded_too(client: Client, session: str) -> None:
    bare = session.partition("/")[2]
    await client.files.upload(bare, "bytes", b"1234")
    await client.files.upload(f"workspaces/{bare}", "open", io.BytesIO(b"12345"))
    assert await client.files.read(session, "bytes") + await client.files.read(session, "open") == b"123412345"
    with pytest.raises(errors.Aborted):
        await client.files.upload(session, "bytes", b"other", etag=NONE)


async def test_transfers_survive_cuts_of_their_connection(server: RunningServer, client: Client, session: str) -> None:
    interruptions: list[Interruption] = []
    async with relaying(server.target, cut_after=1_500_000, upwards=True) as relay:
        async with Client.connect(relay.target, server.admin_key, insecure=True) as cut:
            file = await cut.files.upload(session, "a", DATA, on_interruption=interruptions.append)
        assert relay.cuts >= 2
    assert interruptions
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    async with relaying(server.target, cut_after=1_500_000) as relay:
        async with Client.connect(relay.target, server.admin_key, insecure=True) as cut:
            assert await cut.files.read(session, "a") == DATA
        assert relay.cuts >= 2


async def test_an_upload_goes_on_over_a_server_that_is_killed(server_process: StartServer, database_url: str) -> None:
    server = RestartingServer(server_process, database_url)
    await server.start()
    async with server.client() as client:
        session = (await client.sessions.create(spec=SPEC)).name
        half = asyncio.Event()
        offsets: list[int] = []

        def tell(done: int, total: int) -> None:
            if done > total // 2:
                half.set()

        def interrupted(interruption: Interruption) -> None:
            offsets.append(interruption.after_sequence)

        uploading = asyncio.create_task(
            client.files.upload(session, "a", Slow(DATA), on_progress=tell, on_interruption=interrupted)
        )
        await half.wait()
        await server.kill_and_restart()
        file = await uploading
        assert offsets
        assert file.sha256 == hashlib.sha256(DATA).hexdigest()
        assert await client.files.read(session, "a") == DATA


class Slow(io.BytesIO):
    """A file of which little is read at once, so that a transfer takes its time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or -1, 65536) if size and size > 0 else size)


async def test_an_upload_is_gone_on_with_in_another_process(client: Client, session: str) -> None:
    upload = str(uuid4())

    def give_up(done: int, total: int) -> None:
        if done > total // 2:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await client.files.upload(session, "a", DATA, upload_id=upload, on_progress=give_up)
    file = await client.files.upload(session, "a", DATA, upload_id=upload)
    assert (await client.files.get_upload(session, upload)).file == file


async def test_an_upload_may_be_given_up(client: Client, session: str) -> None:
    with pytest.raises(errors.NotFound):
        await client.files.cancel_upload(session, str(uuid4()))


async def test_a_file_that_changes_while_it_is_downloaded_is_noticed(client: Client, session: str) -> None:
    await client.files.upload(session, "a", DATA)
    async with client.files.download(session, "a") as pieces:
        first = await anext(pieces)
    await client.files.upload(session, "a", b"another" + DATA)
    source_etag = "stale"
    with pytest.raises(errors.Aborted):
        async with client.files.download(session, "a", len(first), etag=source_etag) as pieces:
            await anext(pieces)


async def test_blocking_code_moves_files_as_well(server: RunningServer, session: str) -> None:
    def blocking() -> bytes:
        with SyncClient.connect(server.target, server.admin_key, insecure=True) as client:
            client.files.upload(session, "a", DATA)
            assert [each.path for each in client.files.list(session)] == ["a"]
            return client.files.read(session, "a")

    assert await asyncio.to_thread(blocking) == DATA
