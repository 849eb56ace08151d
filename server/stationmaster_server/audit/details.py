"""What may stand in an audit event: bounded, and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MAX_BYTES = 8 * 1024
MASK = "[secret]"
_TEXT_CHARACTERS = 1000
_ITEMS = 100
_DEPTH = 6
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token$|api_?key$|credential_?value|private_?key|authorization|cookie|bearer|^pin$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"sm_[a-z2-9]{10}_[\w-]{43}"  # our own keys
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON Web Tokens
    r"|\bsk-[\w-]{16,}"  # keys of model providers
    r"|(?<=bearer )\S{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.IGNORECASE | re.DOTALL,
)
# Every secret that the pattern finds has one of these, and few other texts have: to look for them first is fast.
_MARK = re.compile(r"sm_|eyj|sk-|bearer |-----begin ", re.IGNORECASE)


def clean(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details without secrets and at most 8 KiB of JSON; what was cut off is told by `truncated`."""
    if not details:
        return {}
    cleaned: dict[str, Any] = _value(details, 0)
    if _size(cleaned) <= MAX_BYTES:
        return cleaned
    kept: dict[str, Any] = {"truncated": True}
    left = MAX_BYTES - _size(kept)
    for key, value in cleaned.items():
        cost = _size({key: value}) + 1
        if cost <= left:
            kept[key] = value
            left -= cost
    return kept


def clean_text(text: str, limit: int = _TEXT_CHARACTERS) -> str:
    """A text without secrets and NUL, and not longer than `limit`."""
    if not text.isascii() or "\0" in text:
        # What UTF-8 cannot hold (a lone surrogate) PostgreSQL cannot either.
        text = text.replace("\0", "").encode("utf-8", "replace").decode()
    if _MARK.search(text):
        text = _SECRET_VALUE.sub(MASK, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if depth >= _DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {clean_text(str(key), 100): _field(str(key), item, depth) for key, item in list(value.items())[:_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(item, depth + 1) for item in list(value)[:_ITEMS]]
    return clean_text(str(value))


def _field(name: str, value: Any, depth: int) -> Any:
    hidden = _names_a_secret(name) and not isinstance(value, bool | int | float | None)
    return MASK if hidden else _value(value, depth + 1)


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
