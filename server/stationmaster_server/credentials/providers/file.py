"""Keys in a file that only the server may read: a line `id:base64` for each, the last one is the newest."""

from __future__ import annotations

import asyncio
import fcntl
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
        key = await asyncio.to_thread(self._append, chosen, secrets.token_bytes(KEY_BYTES))
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

    def _append(self, key_id: str, key: bytes) -> bytes:
        """Add a key, safely on the disk, and read it back; the one that stands there when another server was faster."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)  # several servers may share the file
                there = self._read().get(key_id)
                return self._added(handle, key_id, key) if there is None else there
            finally:
                os.close(handle)
        except OSError as error:
            raise KeysUnreadable(f"the key file {self._path} cannot be written: {error.strerror}") from None

    def _added(self, handle: int, key_id: str, key: bytes) -> bytes:
        before = os.fstat(handle).st_size
        line = f"{key_id}:{b64encode(key).decode()}\n".encode()
        if before and os.pread(handle, 1, before - 1) != b"\n":
            line = b"\n" + line  # a file made by hand may lack the end of its last line
        try:
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
            _sync(self._path.parent)
            if self._read().get(key_id) != key:
                raise KeysUnreadable(f"the key file {self._path} does not hold what was just written to it: look at it")
        except BaseException:
            os.ftruncate(handle, before)  # part of a line would take the other keys with it
            raise
        return key


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
