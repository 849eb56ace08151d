"""A caller's workspace, by the generated stubs: what the contract promises, not what a client library makes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

import grpc
from stationmaster.v1 import agent_pb2, session_pb2, session_pb2_grpc, storage_pb2, storage_pb2_grpc

from tests.waiting import until

CHUNK = 256 * 1024


class Desk:
    """A session's files."""

    def __init__(self, channel: grpc.aio.Channel, session: str) -> None:
        self.stub: Any = storage_pb2_grpc.StorageServiceStub(channel)
        self.sessions: Any = session_pb2_grpc.SessionServiceStub(channel)
        self.channel = channel
        self._kept: list[Any] = []
        self.session = session
        self.workspace = f"workspaces/{session.partition('/')[2]}"

    @classmethod
    async def open(cls, channel: grpc.aio.Channel) -> Desk:
        """The workspace of a new session."""
        sessions: Any = session_pb2_grpc.SessionServiceStub(channel)
        spec = agent_pb2.AgentSpec(model="demo", tools=["files.*"])
        session = await sessions.CreateSession(session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec)))
        return cls(channel, session.name)

    def name(self, path: str) -> str:
        """A file's name."""
        return f"{self.workspace}/files/{path}"

    async def put(
        self, path: str, data: bytes = b"", *, chunks: Iterable[bytes] | None = None, upload: str = "", **header: Any
    ) -> storage_pb2.File:
        """Upload a file; with its size and checksum, unless the header says otherwise (None: not at all)."""
        header = dict[str, Any](size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) | header
        start = int(header.get("offset") or 0)
        if chunks is None:
            chunks = [data[at : at + CHUNK] for at in range(start, len(data), CHUNK)]
        answer: storage_pb2.File = await self.stub.UploadFile(self.requests(path, chunks, upload, last=True, **header))
        return answer

    async def requests(
        self, path: str, pieces: Iterable[bytes], upload: str = "", *, last: bool = False, **header: Any
    ) -> AsyncIterator[storage_pb2.UploadFileRequest]:
        """The messages of an upload."""
        values = {name: value for name, value in header.items() if value is not None}
        first = storage_pb2.UploadFileHeader(name=self.name(path), **values)
        yield storage_pb2.UploadFileRequest(header=first, request_id=upload)
        for piece in pieces:
            yield storage_pb2.UploadFileRequest(data=piece)
        if last:
            yield storage_pb2.UploadFileRequest(last=True)

    async def break_off(
        self, path: str, data: bytes, *, after: int, upload: str = "", keep_open: bool = False, **header: Any
    ) -> str:
        """Begin an upload and go away once so many bytes are with the server; returns the upload's id.

        `keep_open`: it is the server that goes away.
        """
        upload = upload or str(uuid4())
        header = dict[str, Any](size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) | header
        gate = asyncio.Event()

        async def requests() -> AsyncIterator[storage_pb2.UploadFileRequest]:
            offset = header.get("offset", 0)
            pieces = [data[at : min(at + CHUNK, after)] for at in range(offset, after, CHUNK)]
            async for request in self.requests(path, pieces, upload, **header):
                yield request
            await gate.wait()

        call = self.stub.UploadFile(requests())

        async def arrived() -> bool:
            return bool(call.done()) or await self.received(upload) >= after

        await until(arrived, seconds=30)
        if keep_open:
            self._kept.append(call)
        else:
            call.cancel()
        return upload

    async def received(self, upload: str) -> int:
        """How much of an upload is kept; -1 of one that is not known."""
        try:
            found = await self.upload(upload)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return -1
            raise
        return int(found.received_bytes)

    async def upload(self, upload: str) -> storage_pb2.Upload:
        """An upload."""
        found: storage_pb2.Upload = await self.stub.GetUpload(
            storage_pb2.GetUploadRequest(name=f"{self.workspace}/uploads/{upload}")
        )
        return found

    async def cancel(self, upload: str) -> None:
        """Give an upload up."""
        await self.stub.CancelUpload(storage_pb2.CancelUploadRequest(name=f"{self.workspace}/uploads/{upload}"))

    async def pieces(self, path: str, offset: int = 0, etag: str = "") -> list[storage_pb2.DownloadFileResponse]:
        """The messages of a download."""
        request = storage_pb2.DownloadFileRequest(name=self.name(path), offset=offset, etag=etag)
        return [piece async for piece in self.stub.DownloadFile(request)]

    async def get(self, path: str, offset: int = 0) -> bytes:
        """The bytes of a file."""
        return b"".join(piece.data for piece in await self.pieces(path, offset))

    async def stat(self, path: str) -> storage_pb2.File:
        """A file."""
        file: storage_pb2.File = await self.stub.StatFile(storage_pb2.StatFileRequest(name=self.name(path)))
        return file

    async def list(self, folder: str = "", **query: Any) -> list[str]:
        """The paths in a folder, those of folders with a slash; over as many pages as it takes."""
        paths: list[str] = []
        while True:
            request = storage_pb2.ListFilesRequest(parent=self.workspace, folder=folder, **query)
            answer = await self.stub.ListFiles(request)
            paths += [f.path + ("/" if f.kind == storage_pb2.FILE_KIND_FOLDER else "") for f in answer.files]
            if not answer.next_page_token:
                return paths
            query["page_token"] = answer.next_page_token

    async def delete(self, path: str, **more: Any) -> None:
        """Delete a file."""
        await self.stub.DeleteFile(storage_pb2.DeleteFileRequest(name=self.name(path), **more))

    async def move(self, path: str, destination: str, **more: Any) -> storage_pb2.File:
        """Move a file."""
        request = storage_pb2.MoveFileRequest(name=self.name(path), destination=destination, **more)
        file: storage_pb2.File = await self.stub.MoveFile(request)
        return file

    async def info(self) -> storage_pb2.Workspace:
        """What the workspace holds."""
        found: storage_pb2.Workspace = await self.stub.GetWorkspace(
            storage_pb2.GetWorkspaceRequest(name=self.workspace)
        )
        return found

    async def usage(self, subject: str) -> storage_pb2.StorageUsage:
        """What is stored of a user or organization."""
        found: storage_pb2.StorageUsage = await self.stub.GetUsage(
            storage_pb2.GetUsageRequest(name=f"{subject}/storageUsage")
        )
        return found
