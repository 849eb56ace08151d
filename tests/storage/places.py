"""What there is in a place, seen from outside of the server."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
from obstore.store import S3Store

# moto looks at the region alone.
_AUTHORIZED = {"authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/eu-central-1/s3/aws4_request"}
SECRET = b"nobody's business"
PART = 256 * 1024
"""Uploads are kept in pieces of so many bytes, where they are not kept byte by byte."""


class Site(Protocol):
    """Where a server keeps files."""

    @property
    def kind(self) -> str:
        """As the setting says."""

    async def everything(self) -> set[str]:
        """The paths of all files, those of workspaces without what stands before them, and what is being uploaded."""

    def settings(self) -> dict[str, Any]:
        """What tells a server of it, in its settings of storage."""

    def environment(self) -> dict[str, str]:
        """What tells a server of it."""

    async def surround(self, workspace: str) -> None:
        """Put something beside a workspace that is none of its business, under names that attacks would use."""

    async def snapshot(self, without: str = "") -> dict[str, object]:
        """All that there is, with what is in it; `without` the files of a workspace."""

    async def size(self) -> int:
        """How many bytes these have; what moves from one name to another meanwhile counts once."""


@dataclass(frozen=True)
class LocalSite:
    """A folder."""

    root: Path
    kind: str = "local"

    def settings(self) -> dict[str, Any]:
        """See `Site`."""
        return {}

    async def everything(self) -> set[str]:
        """See `Site`."""
        files = [path.relative_to(self.root) for path in self.root.rglob("*") if not path.is_dir()]
        return {str(path) if path.parts[0] == ".uploads" else str(Path(*path.parts[1:])) for path in files}

    def environment(self) -> dict[str, str]:
        """See `Site`."""
        return {}

    async def surround(self, workspace: str) -> None:
        """See `Site`."""
        beside = self.root.parent.parent
        for folder in (beside, beside / "etc", self.root.parent, self.root):
            folder.mkdir(exist_ok=True)
            for name in ("secret", "passwd", "b"):
                (folder / name).write_bytes(SECRET)

    async def snapshot(self, without: str = "") -> dict[str, object]:
        """See `Site`."""
        beside, left_out = self.root.parent.parent, self.root / without.partition("/")[2]
        found: dict[str, object] = {}
        for path in beside.rglob("*"):
            ours = path.is_relative_to(self.root) or not path.is_relative_to(self.root.parent)
            if ours and not (without and path.is_relative_to(left_out)) and ".uploads" not in path.parts:
                status = path.lstat()
                contents = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                found[str(path)] = (status.st_mode, status.st_ino, contents)
        return found

    async def size(self) -> int:
        """See `Site`."""
        sizes: dict[int, int] = {}
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return sum(sizes.values())


@dataclass(frozen=True)
class S3Site:
    """A bucket, and a prefix in it."""

    endpoint: str
    bucket: str
    kind: str = "s3"

    def settings(self) -> dict[str, Any]:
        """See `Site`."""
        values = {"bucket": self.bucket, "endpoint": self.endpoint, "region": "eu-central-1", "prefix": "ours/files"}
        # A file has 10,000 parts at most.
        most = {"max_file_bytes": 10_000 * PART, "max_archive_bytes": 10_000 * PART}
        return {"place": "s3", **most, "s3": {**values, "access_key_id": "a", "access_key": "b", "part_bytes": PART}}

    async def everything(self) -> set[str]:
        """See `Site`."""
        found = [each["path"].split("/")[2:] for each in await self._objects("ours/files")]
        return {"/".join(parts[2:] if parts[0] == "workspaces" else parts) for parts in found}

    def environment(self) -> dict[str, str]:
        """See `Site`."""
        values = self.settings()
        inner = {f"S3__{name.upper()}": value for name, value in values.pop("s3").items()}
        outer = {name.upper(): value for name, value in values.items()}
        return {f"STATIONMASTER_STORAGE__{name}": str(value) for name, value in (outer | inner).items()}

    async def surround(self, workspace: str) -> None:
        """See `Site`."""
        session = workspace.partition("/")[2]
        for folder in (
            "",
            "ours/",
            "ours/files/",
            "ours/files/workspaces/",
            f"ours/files/workspaces/{session}-",
            "etc/",
        ):
            for name in ("secret", "passwd", "b"):
                await self._store.put_async(f"{folder}{name}", SECRET)

    async def snapshot(self, without: str = "") -> dict[str, object]:
        """See `Site`."""
        left_out = f"ours/files/workspaces/{without.partition('/')[2]}/" if without else "?"
        return {
            each["path"]: each["e_tag"]
            for each in await self._objects(None)
            if not each["path"].startswith((left_out, "ours/files/uploads/"))
        }

    async def size(self) -> int:
        """See `Site`."""
        found = {each["path"]: each["size"] for each in await self._objects("ours/files")}
        # The parts of those that are sealed are about to be, or are by now, what a file is made of.
        sealed = {path.rpartition("/")[0] for path in found if path.endswith("/sealed")}
        return sum(size for path, size in found.items() if path.rpartition("/")[0] not in sealed)

    async def uploads(self) -> str:
        """What moto says of uploads that were begun and neither completed nor aborted."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{self.endpoint}/{self.bucket}", params={"uploads": ""}, headers=_AUTHORIZED)
        return answer.text

    @property
    def _store(self) -> S3Store:
        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region="eu-central-1",
            access_key_id="a",
            secret_access_key="b",
            client_options={"allow_http": True},
        )

    async def _objects(self, prefix: str | None) -> Sequence[Any]:
        return await self._store.list(prefix).collect_async()
