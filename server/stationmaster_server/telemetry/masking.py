"""Takes secrets out of what is about to be logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(
    r"(^|[_.-])(password|passphrase|passwd|secret|api_?key|authorization|token|bearer|cookie|private_?key|dsn)$",
    re.IGNORECASE,
)
_SECRET_TEXT = (
    re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),  # the password of a URL
    re.compile(r"\b(sk-|sm_|ghp_|xox[bap]-)[A-Za-z0-9_-]{8,}"),  # keys that tell what they are by their beginning
    re.compile(r"\b(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),  # a JWT
)


def mask_text(text: str) -> str:
    """Replace whatever looks like a secret in a text."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def mask(value: Any, name: str = "") -> Any:
    """Return a copy of a value of a log line without its secrets."""
    if name and _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return {key: mask(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [mask(item) for item in value]
    return value
