"""Makes a third party's text fit to be stored and shown."""

from __future__ import annotations

import re
from typing import Any

# Control characters but line feed and tab; NUL is one that PostgreSQL does not store.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What a person cannot see and a model reads: direction overrides, zero-width characters, tags.
_INVISIBLE = re.compile("[\u200b\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")


def content(text: str) -> str:
    """The text of a result."""
    return _CONTROL.sub("", text.encode("utf-8", "replace").decode())


def label(text: str | None, limit: int) -> str:
    """A name, title or description, at most `limit` characters long."""
    cleaned = _INVISIBLE.sub("", content(text or ""))
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def value(item: Any) -> Any:
    """The strings in a JSON value."""
    match item:
        case str():
            return content(item)
        case list():
            return [value(one) for one in item]
        case dict():
            return {content(key): value(one) for key, one in item.items()}
        case _:
            return item


def depth(item: Any, limit: int) -> int:
    """How deep a JSON value is nested; counting stops beyond `limit`."""
    level, here = 0, [item]
    while here and level <= limit:
        here = [
            inner
            for one in here
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        level += 1
    return level
