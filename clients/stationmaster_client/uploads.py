"""Uploads that go on by themselves where they broke off."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias
from uuid import uuid4

from grpc import aio
from stationmaster.v1 import storage_pb2

from stationmaster_client.calls import Calls, was_cancelled
from stationmaster_client.errors import NotFound, StationmasterError, Unavailable, from_rpc_error
from stationmaster_client.stream import Interruption, Patience, resumable

if TYPE_CHECKING:
    from stationmaster.v1.storage_pb2_grpc import StorageServiceAsyncStub

Call: TypeAlias = "aio.StreamUnaryCall[storage_pb2.UploadFileRequest, storage_pb2.File]"

CHUNK_BYTES = 1024 * 1024
_GO_ON = frozenset({"UPLOAD_OFFSET", "CONCURRENT_CHANGE"})
"""Reasons of what waiting mends: another place to go on at, a stream of ours that the server has not given up yet."""


@asynccontextmanager
async def opened(source: bytes | Path | BinaryIO) -> AsyncIterator[BinaryIO]:
    """What is to be uploaded, as a file that can be read from any place."""
    if isinstance(source, Path):
        with await asyncio.to_thread(source.open, "rb") as file:
            yield file
    elif isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        yield source


class Uploading:
    """One upload, over as many calls as it takes."""

    def __init__(
        self,
        calls: Calls,
        stub: StorageServiceAsyncStub,
        name: str,
        file: BinaryIO,
        *,
        etag: str = "",
        upload_id: str = "",
    ) -> None:
        self._calls = calls
        self._stub = stub
        self._header = storage_pb2.UploadFileHeader(name=name, etag=etag)
        self._file = file
        self._id = upload_id or str(uuid4())
        self._again = bool(upload_id)

    async def run(
        self,
        patience: timedelta | None,
        on_interruption: Callable[[Interruption], None] | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> storage_pb2.File:
        """Upload it all. Raises StationmasterError."""
        size, digest = await asyncio.to_thread(self._measure)
        self._header.size_bytes, self._header.sha256 = size, digest
        waiting, furthest = Patience(patience, on_interruption), 0
        offset: int | None = None if self._again else 0
        while True:
            try:
                if offset is None:
                    offset = await self._received()
                    if offset > furthest:
                        furthest = offset
                        waiting.got_on()
                return await self._send(offset, on_progress)
            except StationmasterError as error:
                if not resumable(error) and error.reason not in _GO_ON:
                    raise
                await waiting.wait(error, offset or 0)
                offset = None

    async def _received(self) -> int:
        workspace = self._header.name.partition("/files/")[0]
        request = storage_pb2.GetUploadRequest(name=f"{workspace}/uploads/{self._id}")
        try:
            return (await self._calls.unary(self._stub.GetUpload, request)).received_bytes
        except NotFound:
            return 0

    async def _send(self, offset: int, on_progress: Callable[[int, int], None] | None) -> storage_pb2.File:
        call = self._calls.upload(self._stub.UploadFile)
        try:
            with suppress(asyncio.InvalidStateError):  # the server has answered already: it says why
                await self._write(call, offset, on_progress)
            return await call
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except aio.InternalError:  # grpc says so when the connection broke just as the end was being sent
            raise Unavailable("the connection broke on the way") from None
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            raise Unavailable("the call was cancelled on the way") from None
        finally:
            call.cancel()

    async def _write(self, call: Call, offset: int, on_progress: Callable[[int, int], None] | None) -> None:
        header = storage_pb2.UploadFileHeader()
        header.CopyFrom(self._header)
        header.offset = offset
        await call.write(storage_pb2.UploadFileRequest(header=header, request_id=self._id))
        while data := await asyncio.to_thread(self._read, offset):
            await call.write(storage_pb2.UploadFileRequest(data=data))
            offset += len(data)
            if on_progress is not None:
                on_progress(offset, header.size_bytes)
        await call.done_writing()

    def _read(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(CHUNK_BYTES)

    def _measure(self) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        while data := self._read(size):
            digest.update(data)
            size += len(data)
        return size, digest.hexdigest()
