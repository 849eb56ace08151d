"""The events in the body of a streamed answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_EVENT_BYTES = 16 * 1024 * 1024


class Events:
    """Finds the events in the pieces of a body, wherever it is cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The events that this piece completes. Raises ValueError where one is no JSON object, or too long."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:"))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield _event(data)
        if len(self._rest) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise ValueError("an event without an end")


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except RecursionError:
        raise ValueError("an event that is too deep") from None
    if not isinstance(event, dict):
        raise ValueError("an event that is no object")
    return event
