"""Archives of a desk's workspace, by the generated stubs; and archives as attackers make them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from typing import Any

from stationmaster.v1 import storage_pb2

from tests.storage.desk import Desk

GZ, ZST = storage_pb2.ARCHIVE_FORMAT_TAR_GZ, storage_pb2.ARCHIVE_FORMAT_TAR_ZST


class Vault:
    """The archive of a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.name = desk.workspace.replace("workspaces/", "archives/")

    async def make(self, **more: Any) -> storage_pb2.Archive:
        """Archive the workspace."""
        request = storage_pb2.ArchiveWorkspaceRequest(name=self.desk.workspace, **more)
        archive: storage_pb2.Archive = await self.desk.stub.ArchiveWorkspace(request)
        return archive

    async def restore(self, source: Vault | None = None, file: str = "", **more: Any) -> storage_pb2.Workspace:
        """Restore an archive, this one unless another or a file is given, into the workspace."""
        name = file or (source or self).name
        request = storage_pb2.RestoreWorkspaceRequest(name=self.desk.workspace, source=name, **more)
        workspace: storage_pb2.Workspace = await self.desk.stub.RestoreWorkspace(request)
        return workspace

    async def list(self, **query: Any) -> list[storage_pb2.Archive]:
        """A page of archives."""
        answer = await self.desk.stub.ListArchives(storage_pb2.ListArchivesRequest(**query))
        return list(answer.archives)

    async def get(self, offset: int = 0, etag: str = "") -> bytes:
        """The bytes of the archive."""
        request = storage_pb2.DownloadArchiveRequest(name=self.name, offset=offset, etag=etag)
        return b"".join([piece.data async for piece in self.desk.stub.DownloadArchive(request)])

    async def delete(self, **more: Any) -> None:
        """Delete the archive."""
        await self.desk.stub.DeleteArchive(storage_pb2.DeleteArchiveRequest(name=self.name, **more))

    async def clean_up(self, **more: Any) -> storage_pb2.CleanupArchivesResponse:
        """Delete archives that fit."""
        answer: storage_pb2.CleanupArchivesResponse = await self.desk.stub.CleanupArchives(
            storage_pb2.CleanupArchivesRequest(**more)
        )
        return answer


Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"attack", **more: Any) -> Entry:
    """A member of a tar file; what is given besides is set on it."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def manifest(contents: Iterable[tuple[str, bytes]], /, **more: Any) -> Entry:
    """A manifest of these files."""
    listed = [
        {"path": path, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in contents
    ]
    document = {"format": "stationmaster.workspace-archive", "version": 1, "files": listed} | more
    return file("manifest.json", json.dumps(document).encode())


def tar(entries: Sequence[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar file of these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def packed(entries: Sequence[Entry], **more: Any) -> bytes:
    """The same in gzip."""
    return gzip.compress(tar(entries, **more), 1)


def whole(*files: tuple[str, bytes]) -> bytes:
    """An archive as it should be."""
    return packed([*(file(f"workspace/{path}", data) for path, data in files), manifest(files)])
