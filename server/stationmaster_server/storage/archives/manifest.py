"""The manifest of an archive: which files are in it, and their checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stationmaster_server.storage.archives.model import (
    MANIFEST,
    MANIFEST_FORMAT,
    MANIFEST_VERSION,
    ArchiveRefused,
    Member,
)

_BESIDE_PATH = 320
"""Bytes that a file may take in the manifest beside its path, which JSON may make longer."""
_BESIDE_FILES = 2048
_SIGNS_BESIDE_FILES = 64


def most_bytes(members: Sequence[Member]) -> int:
    """How large the manifest of these files may be."""
    return sum(2 * len(member.path.encode()) + _BESIDE_PATH for member in members) + _BESIDE_FILES


def write(members: Sequence[Member], workspace: str) -> bytes:
    """The manifest, as JSON."""
    document = {
        "format": MANIFEST_FORMAT,
        "version": MANIFEST_VERSION,
        "workspace": workspace,
        "file_count": len(members),
        "content_bytes": sum(member.size_bytes for member in members),
        "files": [{"path": m.path, "size_bytes": m.size_bytes, "sha256": m.sha256} for m in members],
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def check(data: bytes, found: Sequence[Member]) -> None:
    """Compare what was found with the manifest. Raises ArchiveRefused, which names the first difference."""
    _check_shape(data, found)
    listed = _files(data)
    for member, entry in zip(found, listed, strict=False):
        if entry.get("path") != member.path:
            raise ArchiveRefused(member.path, f"is where the manifest has {str(entry.get('path'))[:200]!r}")
        if entry.get("size_bytes") != member.size_bytes:
            raise ArchiveRefused(member.path, "has another size than the manifest says")
        if entry.get("sha256") != member.sha256:
            raise ArchiveRefused(member.path, "has another checksum than the manifest says")
    if len(listed) < len(found):
        raise ArchiveRefused(found[len(listed)].path, "is not in the manifest")
    if len(listed) > len(found):
        raise ArchiveRefused(str(listed[len(found)].get("path"))[:200], "is in the manifest only")


def _check_shape(data: bytes, found: Sequence[Member]) -> None:
    """Refuse, without reading it, what has far more in it than these files need: read, it would take much memory."""
    paths = [member.path.encode() for member in found]
    for sign, each in ((b"{", 1), (b"[", 0), (b",", 3)):
        most = each * len(found) + _SIGNS_BESIDE_FILES + sum(path.count(sign) for path in paths)
        if data.count(sign) > most:
            raise ArchiveRefused(MANIFEST, f"lists more than the {len(found):,} files of the archive")


def _files(data: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ArchiveRefused(MANIFEST, "is no JSON") from None
    if not isinstance(document, dict) or document.get("format") != MANIFEST_FORMAT:
        raise ArchiveRefused(MANIFEST, "is not that of an archive of a workspace")
    if document.get("version") != MANIFEST_VERSION:
        raise ArchiveRefused(MANIFEST, f"is of another version than {MANIFEST_VERSION}")
    files = document.get("files")
    if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
        raise ArchiveRefused(MANIFEST, "has no list of files")
    return files
