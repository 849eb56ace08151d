"""Rules in the words of people: patterns of names and ids, lengths of time."""

from __future__ import annotations

import re

_SMALL = "small letters, digits{}, beginning with a letter, at most 63 characters"
_IDS = {
    "[a-z][a-z0-9-]{0,62}": _SMALL.format(" and -"),
    "[a-z][a-z0-9_-]{0,62}": _SMALL.format(", - and _"),
    "[a-z][a-z0-9_.-]{0,62}": _SMALL.format(", -, _ and ."),
    "[A-Za-z_][A-Za-z0-9_]{0,127}": "letters, digits and _, not beginning with a digit, at most 128 characters",
    "[a-zA-Z_][a-zA-Z0-9_]{0,62}": "letters, digits and _, not beginning with a digit, at most 63 characters",
}
_LITTLE = {
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "UUID",
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "UUID",
    "[0-9a-f-]{36}": "UUID",
    "[1-9][0-9]{0,17}": "NUMBER",
}
_WHOLE = {
    r"[^\x00-\x1f\x7f]*": "leave out line breaks and other control characters",
    r"https?://[^\s]+": "write an address that begins with https:// or http://",
}
_PLAIN = re.compile(r"[A-Za-z/|()-]+")
_SECONDS = re.compile(r"\b(\d+)s\b")
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def of_pattern(pattern: str) -> str:
    """What a text that a pattern refuses is to be; empty when there are no words for the pattern.

    Without the text: it may be a secret in the wrong place.
    """
    inner = pattern.removeprefix("^").removesuffix("$")
    if inner.startswith("(") and inner.endswith(")?"):
        inner = inner[1:-2]
    if inner in _WHOLE:
        return _WHOLE[inner]
    what = _IDS.get(inner) or _of_name(inner)
    return f"does not fit: write {what}" if what else ""


def _of_name(inner: str) -> str:
    """`tasks/ID, where ID is …`."""
    of_id = ""
    for part, word in _LITTLE.items():
        inner = inner.replace(part, word)
    for part, words in _IDS.items():
        if part in inner:
            inner, of_id = inner.replace(part, "ID"), f", where ID is {words}"
    if not _PLAIN.fullmatch(inner) or "ID" not in inner:
        return ""
    before, _, group = inner.partition("(")
    group, _, after = group.partition(")")
    names = [f"{before}{one}{after}" for one in group.split("|")]
    return f"{' or '.join(f'{name}PATH' if name.endswith('/') else name for name in names)}{of_id}"


def of_time(message: str) -> str:
    """A rule about a length of time: `at least 10 s and at most 365 days`."""
    said = message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return _SECONDS.sub(lambda found: _length(int(found[1])), said)


def _length(seconds: int) -> str:
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit if count > 1 else unit.removesuffix('s')}"
    return f"{seconds} s"
