"""Packs files into an archive, a piece in memory at a time. Blocks: to be called in a thread where much is done."""

from __future__ import annotations

import hashlib

from stationmaster_server.storage.archives import manifest, tar
from stationmaster_server.storage.archives.codecs import compressor
from stationmaster_server.storage.archives.model import MANIFEST, WORKSPACE, ArchiveFormat, Member

_PIECE_BYTES = 1024 * 1024


class Packer:
    """An archive that is being made: files are added one after the other."""

    def __init__(self, form: ArchiveFormat) -> None:
        self._compressor = compressor(form)
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self._open: tuple[str, int] | None = None
        self.members: list[Member] = []
        self.content_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there is enough to be compressed."""
        return len(self._waiting) >= _PIECE_BYTES

    @property
    def is_open(self) -> bool:
        """Whether a file has begun, which must then come whole."""
        return self._open is not None

    def begin(self, path: str, size_bytes: int, changed_at: int) -> None:
        """The head of the next file."""
        self._open = path, size_bytes
        self._waiting += tar.head(WORKSPACE + path, size_bytes, changed_at)
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Some of its bytes."""
        self._digest.update(data)
        self._waiting += data

    def end(self) -> None:
        """All of its bytes have been added."""
        if self._open is None:
            raise RuntimeError("no file has begun")
        (path, size_bytes), self._open = self._open, None
        self._waiting += bytes(tar.padding(size_bytes))
        self.members.append(Member(path, size_bytes, self._digest.hexdigest()))
        self.content_bytes += size_bytes

    def drain(self) -> bytes:
        """What there is of the archive by now."""
        out = self._compressor.compress(self._waiting)
        self._waiting.clear()
        return out

    def finish(self, workspace: str, made_at: int) -> bytes:
        """The rest of the archive, with the manifest."""
        data = manifest.write(self.members, workspace)
        self._waiting += tar.head(MANIFEST, len(data), made_at) + data + bytes(tar.padding(len(data))) + tar.END
        return self.drain() + self._compressor.flush()
