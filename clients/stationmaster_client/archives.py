"""Archives of workspaces: made, restored, and downloads that resume by themselves and are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Unpack

from grpc import aio
from stationmaster.v1 import storage_pb2, storage_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.errors import DataLoss, StationmasterError, Unavailable
from stationmaster_client.files import file_name, workspace_name
from stationmaster_client.names import full, last
from stationmaster_client.paging import Listing, Query
from stationmaster_client.stream import EventStream, Interruption

TIMEOUT = timedelta(hours=1)
"""How long to wait for an archive that is made or restored, which takes about a minute for a GiB."""


class Archives:
    """`archives/…`. Every method takes a session's name or bare id, or the name of its archive or workspace."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = storage_pb2_grpc.StorageServiceStub(calls.channel)

    async def create(
        self,
        session: str,
        *,
        format: storage_pb2.ArchiveFormat.ValueType = storage_pb2.ARCHIVE_FORMAT_TAR_GZ,  # noqa: A002
        overwrite: bool = False,
        timeout: timedelta = TIMEOUT,
    ) -> storage_pb2.Archive:
        """Archive the workspace of a session, whose only archive it then is."""
        request = storage_pb2.ArchiveWorkspaceRequest(name=workspace_name(session), format=format, overwrite=overwrite)
        return await self._calls.unary(self._stub.ArchiveWorkspace, request, timeout)

    async def restore(
        self,
        session: str,
        source: str = "",
        *,
        path: str = "",
        overwrite: bool = False,
        timeout: timedelta = TIMEOUT,
    ) -> storage_pb2.Workspace:
        """Put the files of an archive into the workspace of a session, all of them or none.

        `source`: whose archive, by default the session's own; with `path`, a file of that session's workspace which
        once was downloaded as an archive.
        """
        source = source or session
        name = file_name(source, path) if path else archive_name(source)
        request = storage_pb2.RestoreWorkspaceRequest(name=workspace_name(session), source=name, overwrite=overwrite)
        return await self._calls.unary(self._stub.RestoreWorkspace, request, timeout)

    async def get(self, session: str) -> storage_pb2.Archive:
        """Return what is known of a session's archive."""
        request = storage_pb2.GetArchiveRequest(name=archive_name(session))
        return await self._calls.unary(self._stub.GetArchive, request)

    def list(self, **query: Unpack[Query]) -> Listing[storage_pb2.Archive, storage_pb2.ListArchivesResponse]:
        """List archives, newest first: the large ones with `filter='size_bytes > 1000000'`."""

        async def fetch(token: str) -> storage_pb2.ListArchivesResponse:
            request = storage_pb2.ListArchivesRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListArchives, request)

        return Listing(fetch, lambda page: page.archives)

    def download(
        self,
        session: str,
        offset: int = 0,
        *,
        etag: str = "",
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> EventStream[bytes]:
        """The bytes of an archive from `offset` on, piece by piece; a broken connection is resumed where it broke.

        Aborted is raised when the session has another archive meanwhile; DataLoss, at the end of what was read from the
        first byte on, when it is not what was stored.
        """
        request = storage_pb2.DownloadArchiveRequest(name=archive_name(session), offset=offset, etag=etag)
        source = ArchiveSource(request, lambda current: self._calls.stream(self._stub.DownloadArchive, current))
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    async def read(self, session: str) -> bytes:
        """The whole archive, checked. Raises Unavailable when the server stays away for the client's timeout."""
        async with self.download(session, patience=self._calls.timeout) as pieces:
            return b"".join([piece async for piece in pieces])

    async def delete(self, session: str, *, etag: str = "") -> None:
        """Delete an archive."""
        request = storage_pb2.DeleteArchiveRequest(name=archive_name(session), etag=etag)
        await self._calls.unary(self._stub.DeleteArchive, request)

    async def clean_up(
        self,
        *,
        filter: str = "",  # noqa: A002
        older_than: timedelta | None = None,
        validate_only: bool = False,
    ) -> storage_pb2.CleanupArchivesResponse:
        """Delete the archives that fit a filter and are old enough; `validate_only`: tell which these are."""
        request = storage_pb2.CleanupArchivesRequest(filter=filter, validate_only=validate_only)
        if older_than is not None:
            request.older_than.FromTimedelta(older_than)
        return await self._calls.unary(self._stub.CleanupArchives, request)


class ArchiveSource:
    """The bytes of an archive after those that were taken; its sequence is their number."""

    def __init__(
        self,
        request: storage_pb2.DownloadArchiveRequest,
        download: Callable[[storage_pb2.DownloadArchiveRequest], aio.UnaryStreamCall[Any, Any]],
    ) -> None:
        self.last_sequence = request.offset
        self.finished = False
        self._name = request.name
        self._etag = request.etag
        self._download = download
        self._sum = hashlib.sha256() if request.offset == 0 else None
        self._archive: storage_pb2.Archive | None = None

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Ask for what is missing of the same archive."""
        return self._download(
            storage_pb2.DownloadArchiveRequest(name=self._name, offset=self.last_sequence, etag=self._etag)
        )

    def take(self, batch: storage_pb2.DownloadArchiveResponse) -> Sequence[bytes]:
        """The piece, if it is the next one."""
        if batch.HasField("archive"):
            self._archive, self._etag = batch.archive, batch.archive.etag
        if batch.offset != self.last_sequence:
            raise DataLoss(f"the server sent the bytes from {batch.offset} on instead of {self.last_sequence}")
        if self._sum is not None:
            self._sum.update(batch.data)
        self.last_sequence += len(batch.data)
        return [batch.data] if batch.data else []

    def must_reopen(self) -> bool:
        """Pieces that are missing are noticed at once."""
        return False

    def end(self) -> StationmasterError | None:
        """The server has sent everything; whether that is everything can be told."""
        if self._archive is None or self.last_sequence < self._archive.size_bytes:
            return Unavailable("the download ended before the archive did")
        if self._sum is not None and self._sum.hexdigest() != self._archive.sha256:
            return DataLoss(f"what was downloaded of {self._archive.name} is not what was stored: download it again")
        self.finished = True
        return None


def archive_name(session: str) -> str:
    """`archives/…` from a session's name or id, or the name of its workspace or archive."""
    return full("archives", last(session))
