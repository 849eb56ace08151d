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
_NO_BRACES = "credentials/ID, or a text of at most 400 characters with {credentials/ID} in it, where ID is "
_OTHERS = {
    "[A-Za-z0-9_.*/-]+": "letters, digits, _, ., /, - and *, such as files.* or github/*",
    "[A-Za-z0-9_.:/@-]+": "letters, digits, _, ., :, /, @ and -, such as anthropic:claude-sonnet-5",
    "(prompts/)?[a-z][a-z0-9-]{0,62}((@|/versions/)[1-9][0-9]{0,8}|@[a-z][a-z0-9_.-]{0,62})?": (
        "prompts/ID, prompts/ID@LABEL or prompts/ID@NUMBER, where ID is " + _SMALL.format(" and -")
    ),
    r"(\*|(mcpServers/)?[a-z][a-z0-9_-]{0,62})": "mcpServers/ID or *, where ID is " + _SMALL.format(", - and _"),
    r"custom(\.[a-zA-Z][a-zA-Z0-9_-]{0,40}){1,4}": (
        "custom. and one to four words with points between them, such as custom.invoice.approve; a word is letters,"
        " digits, - and _, beginning with a letter, at most 41 characters"
    ),
    "[a-z0-9][a-z0-9_.:-]{0,62}": "small letters, digits, -, _, . and :, beginning with a letter or digit, at most 63",
    "[a-z0-9][a-z0-9_.-]{0,62}": "small letters, digits, -, _ and ., beginning with a letter or digit, at most 63",
    "[a-z_][a-zA-Z0-9_]{0,62}": "letters, digits and _, beginning with a small letter or _, at most 63 characters",
    "whsec_[A-Za-z0-9+/]{32,86}={0,2}": "whsec_ and the base64 of 24 to 64 bytes",
    r"([a-z][a-z_]*\.([a-z_]+|\*)|\*)": "a scope such as sessions.read, sessions.* for all of a kind, or *",
    "[A-Za-z0-9-]{1,100}": "letters, digits and -, at most 100 characters",
    "[0-9a-f]{64}": "64 hexadecimal digits, a to f in small letters",
    r"(credentials/[a-z][a-z0-9-]{0,62}|[^{}\x00]{0,200}\{credentials/[a-z][a-z0-9-]{0,62}\}[^{}\x00]{0,200})": (
        _NO_BRACES + _SMALL.format(" and -")
    ),
    r"(credentials/[a-z][a-z0-9-]{0,62}|"
    r"[^{}\x00-\x1f\x7f]{0,200}\{credentials/[a-z][a-z0-9-]{0,62}\}[^{}\x00-\x1f\x7f]{0,200})": (
        _NO_BRACES + _SMALL.format(" and -")
    ),
    "(archives/[0-9a-f-]{36}$|workspaces/[0-9a-f-]{36}/files/)": "archives/UUID or workspaces/UUID/files/PATH",
}
_PLAIN = re.compile(r"[A-Za-z/|()-]+")
_SECONDS = re.compile(r"\b(\d+)s\b")
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def of_pattern(pattern: str) -> str:
    """What a text that a pattern refuses is to be; empty when there are no words for the pattern.

    Without the text: it may be a secret in the wrong place.
    """
    inner = pattern.removeprefix("^").removesuffix("$")
    if inner not in _OTHERS and inner.startswith("(") and inner.endswith(")?"):
        inner = inner[1:-2]
    if inner in _WHOLE:
        return _WHOLE[inner]
    what = _IDS.get(inner) or _OTHERS.get(inner) or _of_name(inner)
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
