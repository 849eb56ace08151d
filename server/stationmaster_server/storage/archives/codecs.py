"""The compressions of archives, piece by piece and within bounds of memory."""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from typing import Any, Protocol

from stationmaster_server.storage.archives.model import ArchiveFormat, ArchiveRefused

_GZIP = zlib.MAX_WBITS | 16
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
_ZSTD_WINDOW_LOG = 24
"""Who unpacks needs so much memory, as a power of two: what asks for more is refused."""


class Compressor(Protocol):
    """Makes less of bytes."""

    def compress(self, data: bytes | bytearray, /) -> bytes:
        """Some of what becomes of them."""

    def flush(self) -> bytes:
        """The rest."""


class Decompressor(Protocol):
    """Makes bytes again; never more at once than is asked for."""

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to get without another piece."""

    @property
    def eof(self) -> bool:
        """Whether that was all, which the packed bytes say themselves."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """The next bytes. Raises ArchiveRefused."""


def compressor(form: ArchiveFormat) -> Compressor:
    """For a new archive."""
    if form is ArchiveFormat.TAR_GZ:
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    made: Compressor = _zstd().ZstdCompressor(level=_ZSTD_LEVEL)
    return made


def decompressor(form: ArchiveFormat) -> Decompressor:
    """For an archive that is there."""
    return _Gzip() if form is ArchiveFormat.TAR_GZ else _Zstd()


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        except zlib.error as error:
            raise ArchiveRefused("", f"is no gzip, or damaged ({error})") from None
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


class _Zstd:
    def __init__(self) -> None:
        self._module = _zstd()
        bound = {self._module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._inner = self._module.ZstdDecompressor(options=bound)

    @property
    def needs_input(self) -> bool:
        return bool(self._inner.needs_input)

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return bytes(self._inner.decompress(data, max_length))
        except self._module.ZstdError as error:
            raise ArchiveRefused("", f"is no Zstandard, or damaged ({error})") from None


def _zstd() -> Any:
    """The standard library's module, or its backport."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
