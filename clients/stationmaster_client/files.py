"""Files of workspaces: uploads and downloads that resume by themselves and are checked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Unpack

from stationmaster.v1 import storage_pb2, storage_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.downloads import FileSource
from stationmaster_client.names import full, last
from stationmaster_client.paging import Listing, Pattern
from stationmaster_client.stream import EventStream, Interruption
from stationmaster_client.uploads import Uploading, opened

ANY = "*"
NONE = "none"
"""Etags of `upload`: only over a file that is there; only where there is none."""


class Files:
    """`workspaces/…/files/…`. Every method takes a session's name or bare id, or the name of its workspace."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = storage_pb2_grpc.StorageServiceStub(calls.channel)

    async def workspace(self, session: str) -> storage_pb2.Workspace:
        """Return how much is in a session's workspace."""
        request = storage_pb2.GetWorkspaceRequest(name=workspace_name(session))
        return await self._calls.unary(self._stub.GetWorkspace, request)

    def list(
        self, session: str, folder: str = "", *, recursive: bool = False, **query: Unpack[Pattern]
    ) -> Listing[storage_pb2.File, storage_pb2.ListFilesResponse]:
        """List what is in a folder, or all files below it: `filter='name = "*.csv"'`."""

        async def fetch(token: str) -> storage_pb2.ListFilesResponse:
            request = storage_pb2.ListFilesRequest(
                parent=workspace_name(session), folder=folder, recursive=recursive, page_token=token, **query
            )
            return await self._calls.unary(self._stub.ListFiles, request)

        return Listing(fetch, lambda page: page.files)

    async def stat(self, session: str, path: str) -> storage_pb2.File:
        """Return what is known of a file or folder."""
        return await self._calls.unary(self._stub.StatFile, storage_pb2.StatFileRequest(name=file_name(session, path)))

    async def upload(
        self,
        session: str,
        path: str,
        source: bytes | Path | BinaryIO,
        *,
        etag: str = "",
        upload_id: str = "",
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> storage_pb2.File:
        """Upload bytes, or a file that can be read from any place; returns when it is there, whole and checked.

        A broken connection, or a server that starts again, is gone on with; with the `upload_id` (a UUID) of an
        earlier call, so is that one. `on_progress` is told how many bytes were sent of how many.
        """
        async with opened(source) as file:
            uploading = Uploading(
                self._calls, self._stub, file_name(session, path), file, etag=etag, upload_id=upload_id
            )
            return await uploading.run(patience, on_interruption, on_progress)

    async def get_upload(self, session: str, upload_id: str) -> storage_pb2.Upload:
        """Return how far an upload is."""
        name = f"{workspace_name(session)}/uploads/{upload_id}"
        return await self._calls.unary(self._stub.GetUpload, storage_pb2.GetUploadRequest(name=name))

    async def cancel_upload(self, session: str, upload_id: str) -> None:
        """Give up an upload that broke off."""
        name = f"{workspace_name(session)}/uploads/{upload_id}"
        await self._calls.unary(self._stub.CancelUpload, storage_pb2.CancelUploadRequest(name=name))

    def download(
        self,
        session: str,
        path: str,
        offset: int = 0,
        *,
        etag: str = "",
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> EventStream[bytes]:
        """The bytes of a file from `offset` on, piece by piece; a broken connection is resumed where it broke.

        Aborted is raised when the file changes meanwhile, DataLoss when what arrived is not what was sent.
        """
        request = storage_pb2.DownloadFileRequest(name=file_name(session, path), offset=offset, etag=etag)
        source = FileSource(request, lambda current: self._calls.stream(self._stub.DownloadFile, current))
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    async def read(self, session: str, path: str) -> bytes:
        """The whole file, checked. Raises Unavailable when the server stays away for the client's timeout."""
        async with self.download(session, path, patience=self._calls.timeout) as pieces:
            return b"".join([piece async for piece in pieces])

    async def delete(self, session: str, path: str, *, etag: str = "") -> None:
        """Delete a file or an empty folder."""
        request = storage_pb2.DeleteFileRequest(name=file_name(session, path), etag=etag)
        await self._calls.unary(self._stub.DeleteFile, request)

    async def move(
        self, session: str, path: str, destination: str, *, overwrite: bool = False, etag: str = ""
    ) -> storage_pb2.File:
        """Give a file another path."""
        request = storage_pb2.MoveFileRequest(
            name=file_name(session, path), destination=destination, overwrite=overwrite, etag=etag
        )
        return await self._calls.unary(self._stub.MoveFile, request)

    async def usage(self, owner: str) -> storage_pb2.StorageUsage:
        """Return how much `users/…` or `organizations/…` stores, and may store."""
        request = storage_pb2.GetUsageRequest(name=f"{owner}/storageUsage")
        return await self._calls.unary(self._stub.GetUsage, request)


def workspace_name(session: str) -> str:
    """`workspaces/…` from a session's name or id, or the workspace's own."""
    return full("workspaces", last(session))


def file_name(session: str, path: str) -> str:
    """`workspaces/…/files/{path}`."""
    return f"{workspace_name(session)}/files/{path}"
