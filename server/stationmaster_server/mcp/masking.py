"""Keeps the secrets that a server was given out of everything that comes back from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stationmaster_server.mcp.model import Http, McpServer, Stdio

_SHORTEST = 6
"""Shorter values are no secrets: they would be found in any text."""
_MASK = "***"


class Mask:
    """Replaces secrets by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one secret may begin with another.
        forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        kept = sorted(forms, key=len, reverse=True)
        self.longest = len(kept[0]) if kept else 0
        self._pattern = re.compile("|".join(map(re.escape, kept))) if kept else None

    @classmethod
    def of(cls, server: McpServer) -> Mask:
        """Of what this server is given."""
        match server.transport:
            case Stdio():
                return cls([*server.transport.environment.values(), *server.transport.secrets])
            case Http():
                values = list(server.transport.headers.values())
                # `Bearer abc`: the part after the scheme is the secret.
                return cls([*server.transport.secrets, *values, *(value.partition(" ")[2] for value in values)])
            case _:
                return cls(())

    def text(self, text: str) -> str:
        """A text without secrets."""
        return text if self._pattern is None else self._pattern.sub(_MASK, text)

    def value(self, value: Any) -> Any:
        """A JSON value without secrets."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(item) for item in value]
            case dict():
                return {self.text(key): self.value(item) for key, item in value.items()}
            case _:
                return value


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as writers of JSON put it into a string."""
    yield secret
    for ascii_only in (False, True):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
