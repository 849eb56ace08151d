"""One file up and down. Each piece is serialised once: what the load costs is the same for the floor and for us."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable

from stationmaster.v1 import session_pb2, storage_pb2

from benchmarks.load.channel import Metadata, channel, pairs, stream_call, unary_call, upload_call
from benchmarks.load.ours import SERVICE, create_request

_MIB = 1024 * 1024
_LIMIT_SECONDS = 300
_STORAGE = "/stationmaster.v1.StorageService"


async def floor_files(*, target: str, mib: int) -> dict[str, float]:
    """Mebibytes a second, up and down, of the floor."""
    piece = os.urandom(_MIB)
    async with channel(target) as one:
        began = time.perf_counter()
        answer = await upload_call(one, "/files.Files/Put")(_each([piece] * mib), timeout=_LIMIT_SECONDS)
        up = time.perf_counter() - began
        began, size = time.perf_counter(), 0
        async for data in stream_call(one, "/files.Files/Get")(b"", timeout=_LIMIT_SECONDS):
            size += len(data)
        down = time.perf_counter() - began
    _check(int(answer) == size == mib * _MIB, f"{size} bytes came back")
    return {"up": mib / up, "down": mib / down}


async def our_files(*, target: str, mib: int, metadata: Metadata) -> dict[str, float]:
    """Mebibytes a second, up and down, of ours: with its size and checksum announced, and an id to go on with."""
    piece, sent = os.urandom(_MIB), pairs(metadata)
    digest = hashlib.sha256()
    for _ in range(mib):
        digest.update(piece)
    async with channel(target) as one:
        created = await unary_call(one, f"{SERVICE}/CreateSession")(create_request(), metadata=sent)
        session = session_pb2.Session.FromString(created).name
        name = f"workspaces/{session.partition('/')[2]}/files/large"
        header = storage_pb2.UploadFileHeader(name=name, size_bytes=mib * _MIB, sha256=digest.hexdigest())
        first = storage_pb2.UploadFileRequest(header=header, request_id=str(uuid.uuid4())).SerializeToString()
        middle = storage_pb2.UploadFileRequest(data=piece).SerializeToString()
        last = storage_pb2.UploadFileRequest(last=True).SerializeToString()
        put = upload_call(one, f"{_STORAGE}/UploadFile")
        began = time.perf_counter()
        await put(_each([first, *[middle] * mib, last]), metadata=sent, timeout=_LIMIT_SECONDS)
        up = time.perf_counter() - began
        get = stream_call(one, f"{_STORAGE}/DownloadFile")
        request = storage_pb2.DownloadFileRequest(name=name).SerializeToString()
        began, size, answer = time.perf_counter(), 0, b""
        async for answer in get(request, metadata=sent, timeout=_LIMIT_SECONDS):
            size += len(answer)
        down = time.perf_counter() - began
        sha256 = storage_pb2.DownloadFileResponse.FromString(answer).sha256
        _check(size >= mib * _MIB and sha256 == digest.hexdigest(), "another file came back")
        delete = storage_pb2.DeleteFileRequest(name=name, request_id=str(uuid.uuid4())).SerializeToString()
        await unary_call(one, f"{_STORAGE}/DeleteFile")(delete, metadata=sent)
    return {"up": mib / up, "down": mib / down}


async def _each(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _check(right: bool, why: str) -> None:
    if not right:
        raise RuntimeError(why)
