"""Heads of tar members: written as POSIX has it (pax), and read so that nothing but plain files is taken."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass

from stationmaster_server.storage.archives.model import ArchiveRefused, NotOurs

BLOCK = 512
END = bytes(2 * BLOCK)
"""What follows the last member."""
MOST_EXTENDED_BYTES = 8192
"""An extended header is a path and a size."""

_FILES = (b"0", b"\0")
EXTENDED = b"x"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder of its own",
    b"6": "a pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"g": "a header for all members",
    b"L": "a long name in GNU's form",
    b"K": "a long link in GNU's form",
}
_RECORD = re.compile(rb"(\d{1,5}) ([^=]{1,64})=")


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a member's bytes."""

    name: str
    size_bytes: int
    is_extended: bool


def head(name: str, size_bytes: int, changed_at: int) -> bytes:
    """The head of a plain file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o600, changed_at
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size_bytes: int) -> int:
    """How many zeros follow so many bytes."""
    return -size_bytes % BLOCK


def parse(block: bytes) -> Head:
    """The head in a block. Raises ArchiveRefused for what is none, or of anything but a plain file."""
    name = _text(block[:100])
    prefix = _text(block[345:500])
    if prefix:
        name = f"{prefix}/{name}"
    wanted = block[148:156]
    if _octal(wanted, name) != sum(block) - sum(wanted) + 8 * 0x20:
        raise ArchiveRefused(name, "its header is damaged")
    if block[257:265] != b"ustar\x0000":
        raise NotOurs(name, "its header is not of the form that POSIX has for tar files")
    kind = block[156:157]
    if kind not in _FILES and kind != EXTENDED:
        raise NotOurs(name, f"is {_KINDS.get(kind, 'of an unknown kind')}; only plain files are restored")
    return Head(name, _octal(block[124:136], name), kind == EXTENDED)


def extended(data: bytes) -> dict[str, str]:
    """What an extended header says: a path or a size, nothing else. Raises ArchiveRefused."""
    found: dict[str, str] = {}
    while data:
        match = _RECORD.match(data)
        length = int(match[1]) if match is not None else 0
        if match is None or not match.end() < length <= len(data) or data[length - 1 : length] != b"\n":
            raise ArchiveRefused("", "an extended header is damaged")
        key, value = match[2].decode(errors="replace"), data[match.end() : length - 1]
        if key.startswith("GNU.sparse"):
            raise ArchiveRefused(found.get("path", ""), "is a sparse file; only plain files are restored")
        if key not in ("path", "size") or key in found:
            raise NotOurs(found.get("path", ""), f"has the extended header {key!r}, which it may not have")
        found[key] = _decoded(value)
        data = data[length:]
    if not found.get("size", "0").isdecimal() or len(found.get("size", "")) > 18:
        raise ArchiveRefused(found.get("path", ""), "its size is no number")
    return found


def _text(field: bytes) -> str:
    return _decoded(field.partition(b"\0")[0])


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ArchiveRefused(data.decode(errors="replace"), "its name is not in UTF-8") from None


def _octal(field: bytes, name: str) -> int:
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,11}", digits):
        raise ArchiveRefused(name, "its header has a number in another form than POSIX has for tar files")
    return int(digits, 8)
