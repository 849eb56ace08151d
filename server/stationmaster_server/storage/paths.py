"""Paths of files in workspaces: relative, in one form only, and nothing that could lead elsewhere anywhere."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from stationmaster_server.errors import InvalidArgument

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 32

_DRIVE = re.compile(r"[A-Za-z]:")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE)
# Controls, invisible format characters, halves of surrogate pairs, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What compatibility normalisation does not make a slash or backslash of, though it looks like one.
_LOOKALIKES = frozenset("\u0337\u0338\u1735\u2044\u2215\u2216\u2571\u2572\u27cb\u27cd\u29f5\u29f8\u29f9\u2afd")
_MOST_DECODINGS = 8


class PathRefused(Exception):
    """The path is not one of the workspace's, or what lies there is not a plain file or folder."""


def parse(path: str) -> tuple[str, ...]:
    """The names in a path, which has exactly one form: `notes/today.txt`.

    Raises PathRefused, which says why, for a path that is empty, absolute or has an empty part, `.` or `..`; that has a
    backslash, a drive letter, percent escapes of any of these, control or invisible characters, or lookalikes of `/`,
    `\\` and `.`; that is not in Unicode normal form C; whose names begin or end with a space, end with a dot, are those
    of Windows devices or have more than 255 bytes; that has more than 1,024 bytes or 32 names.
    """
    _check_length(path)
    if not path:
        raise PathRefused("the path must not be empty")
    if path.startswith("/") or "\\" in path or _DRIVE.match(path):
        raise PathRefused("the path must be relative, with / between its names")
    _check_characters(path)
    names = tuple(path.split("/"))
    if "" in names:
        raise PathRefused("the path must have a name on both sides of each /")
    if len(names) > MAX_DEPTH:
        raise PathRefused(f"the path must not have more than {MAX_DEPTH} names")
    for name in names:
        _check_name(name)
    return names


def normalise(path: str) -> tuple[str, ...]:
    """The names in a path as people and models write it: `./notes//today.txt`, `notes/`; none of `.` or an empty path.

    Raises PathRefused as `parse` does for what is left.
    """
    _check_length(path)
    if path.startswith("/"):
        raise PathRefused("the path must be relative, with / between its names")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parse("/".join(parts)) if parts else ()


def require(path: str, field: str) -> tuple[str, ...]:
    """As `parse`, of a field of a request. Raises InvalidArgument, which names the field and says why."""
    try:
        return parse(path)
    except PathRefused as refused:
        raise InvalidArgument.field(field, str(refused)) from None


def speakable(name: str) -> bool:
    """Whether a name that lies in a folder is one that a path can have."""
    try:
        parse(name)
    except PathRefused:
        return False
    return "/" not in name


def _check_length(path: str) -> None:
    if len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        raise PathRefused(f"the path must not have more than {MAX_PATH_BYTES} bytes")


def _check_characters(path: str) -> None:
    if path.isascii() and path.isprintable() and "%" not in path:
        return
    if any(unicodedata.category(character) in _UNSEEN for character in path):
        raise PathRefused("the path must not have control or invisible characters")
    if unicodedata.normalize("NFC", path) != path:
        raise PathRefused("the path must be in Unicode normal form C")
    for character in path:
        looks = unicodedata.normalize("NFKC", character)
        if character in _LOOKALIKES or (looks != character and any(each in looks for each in "/\\.")):
            raise PathRefused(f"the path must not have {character!r}, which looks like a slash, a backslash or a dot")
    _check_escapes(path)


def _check_escapes(path: str) -> None:
    """Names are taken as they are, never decoded here; what others might decode to something else is refused."""
    decoded = path
    for _ in range(_MOST_DECODINGS):
        if not _PERCENT.search(decoded):
            return
        for escape in re.findall(r"(?:%[0-9A-Fa-f]{2})+", decoded):
            try:
                text = unquote(escape, errors="strict")
            except UnicodeDecodeError:
                raise PathRefused(f"the path must not have {escape!r}, which is no text when it is decoded") from None
            if any(each in "/\\." or unicodedata.category(each) in _UNSEEN for each in text):
                raise PathRefused(
                    f"the path must not have {escape!r}, which is a slash, backslash, dot or control if decoded"
                )
        decoded = unquote(decoded, errors="strict")
    raise PathRefused("the path must not be encoded again and again")


def _check_name(name: str) -> None:
    if name in (".", ".."):
        raise PathRefused("the path must not hold . or ..")
    if name != name.strip() or name.endswith("."):
        raise PathRefused(
            f"the path must not have the name {name!r}, which begins or ends with a space or ends with a dot"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise PathRefused(f"the path must not have a name of more than {MAX_NAME_BYTES} bytes")
    if _DRIVE.match(name):
        raise PathRefused(f"the path must not have the name {name!r}, which begins like a drive")
    if _DEVICE.fullmatch(name):
        raise PathRefused(f"the path must not have the name {name!r}, which is a device on Windows")
