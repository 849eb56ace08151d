"""The private keys that this server may sign checkpoints with: of its settings, or of a file."""

from __future__ import annotations

import binascii
import os
import secrets
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stationmaster_server.audit.notes import SigningKey

SEED_BYTES = 32


class KeysUnusable(Exception):
    """A key is no key, or others may read its file; says which."""


def read_keys(text: str, source: str) -> list[SigningKey]:
    """The keys of a text, one a line or between commas, the newest last. Raises KeysUnusable."""
    return [_key(line, source) for line in _lines(text)]


def read_key_file(path: Path) -> list[SigningKey]:
    """The keys of a file; none when there is none. Raises KeysUnusable."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise KeysUnusable(f"the signing key file {path} cannot be read: {why}") from None
    if mode & 0o077:
        raise KeysUnusable(f"the signing key file {path} has mode {mode:04o}, others may read it: chmod 600 it")
    return read_keys(text, f"the signing key file {path}")


def make_key_file(path: Path) -> list[SigningKey]:
    """Make the file with a new key, unless another process did: then those of that. Raises KeysUnusable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, b64encode(secrets.token_bytes(SEED_BYTES)) + b"\n")
            os.fsync(handle)
            with suppress(FileExistsError):
                os.link(temporary, path)  # whole, or not at all
        finally:
            os.close(handle)
            temporary.unlink()
    except OSError as error:
        raise KeysUnusable(f"the signing key file {path} cannot be made: {error.strerror}") from None
    return read_key_file(path)


def _lines(text: str) -> Iterable[str]:
    for line in text.replace(",", "\n").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _key(line: str, source: str) -> SigningKey:
    try:
        seed = b64decode(line, validate=True)
    except (ValueError, binascii.Error):
        seed = b""
    if len(seed) != SEED_BYTES:
        raise KeysUnusable(f"{source} has a line that is no key: 32 bytes in base64 (openssl rand -base64 32)")
    return SigningKey(seed)
