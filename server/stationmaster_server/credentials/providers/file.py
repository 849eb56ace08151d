"""Keys in a file that only the server may read: a line `id:base64` for each, the last one is the newest."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from stationmaster_server.credentials.envelope import KEY_BYTES
from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import KeysUnreadable, NewKey, read_keys, wanted


class FileKeys:
    """`make`: a key that is not in the file may be added to it."""

    name = "file"

    def __init__(self, path: Path, *, make: bool) -> None:
        self._path = path
        self._make = make

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        """See `KeyProvider.keys`."""
        return await asyncio.to_thread(self._read)

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """See `KeyProvider.make`: a new one is written to the file, and safely on the disk when this returns."""
        found = wanted(self.name, await asyncio.to_thread(self._read), key_id, known)
        if found is not None or not self._make or (key_id and not new):
            return found
        chosen = key_id or f"key-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        key = secrets.token_bytes(KEY_BYTES)
        await asyncio.to_thread(self._append, chosen, key)
        return NewKey(self.name, chosen, key, b"")

    def _read(self) -> dict[str, bytes]:
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise KeysUnreadable(f"the key file {self._path} cannot be read: {why}") from None
        if mode & 0o077:
            raise KeysUnreadable(f"the key file {self._path} has mode {mode:04o}, others may read it: chmod 600 it")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        return read_keys(lines, f"the key file {self._path}")

    def _append(self, key_id: str, key: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            handle = os.open(self._path, flags, 0o600)
            try:
                # One write: of several servers that share the file none tears another's line.
                os.write(handle, f"{key_id}:{b64encode(key).decode()}\n".encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise KeysUnreadable(f"the key file {self._path} cannot be written: {error.strerror}") from None
