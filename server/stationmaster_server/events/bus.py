"""The bus between servers: it only wakes readers; what it says wrongly or not at all, the log says."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import Protocol
from uuid import UUID

from stationmaster_server.db.listener import Listener

CHANNEL = "stationmaster_events"
_MAX_PAYLOAD_BYTES = 7999  # PostgreSQL's limit is below 8000
_ORIGIN_LENGTH = 12
_ID_LENGTH = 24  # 16 bytes in base64

# Gets the streams that were written to; None: notifications may have been missed, it may be any stream.
Wake = Callable[[list[UUID] | None], None]


class Bus(Protocol):
    """Tells other servers which streams have new events, and hears it from them (never from itself)."""

    def payloads(self, streams: Iterable[UUID]) -> list[str]:
        """What the flush's own statement is to NOTIFY; nothing when the bus is not the database."""
        ...

    async def publish(self, streams: Iterable[UUID]) -> None:
        """Tell after the commit; does nothing when the flush's statement has told already."""
        ...

    def listen(self, wake: Wake) -> None:
        """Call `wake` with the streams that another server wrote to."""
        ...


class PostgresBus:
    """LISTEN/NOTIFY: one notification for each flush, within its statement, delivered with its commit."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._origin = token_hex(_ORIGIN_LENGTH // 2)

    def payloads(self, streams: Iterable[UUID]) -> list[str]:
        """The origin and the ids of the streams; more than one when they do not fit."""
        ids = _encode(streams)
        room = (_MAX_PAYLOAD_BYTES - _ORIGIN_LENGTH) // _ID_LENGTH * _ID_LENGTH
        return [self._origin + ids[start : start + room] for start in range(0, len(ids), room)]

    async def publish(self, streams: Iterable[UUID]) -> None:
        """Nothing: the notification went with the commit."""

    def listen(self, wake: Wake) -> None:
        """To be called before the listener starts. What this server wrote itself it has fanned out already."""

        def heard(payload: str | None) -> None:
            if payload is None:
                wake(None)
            elif not payload.startswith(self._origin):
                wake(_ids(payload[_ORIGIN_LENGTH:]))

        self._listener.add(CHANNEL, heard)


def _encode(streams: Iterable[UUID]) -> str:
    """The ids one after another, 24 characters each."""
    return "".join(b64encode(stream.bytes).decode() for stream in streams)


def _ids(text: str) -> list[UUID]:
    return [UUID(bytes=b64decode(text[at : at + _ID_LENGTH])) for at in range(0, len(text), _ID_LENGTH)]
