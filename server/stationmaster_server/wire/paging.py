"""Page tokens: cursors that only this system makes, each for the arguments of one request (contract rule 5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.wire.fields import canonical, field_of

DEFAULT_SIZE = 50
MAX_SIZE = 1000
# Well below the 4 MiB that gRPC clients take by default.
MAX_BYTES = 3 * 1024 * 1024
_TAG_BYTES = 16

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class PageTokens:
    """Reads and makes page tokens. Every server of an installation has the same `secret`."""

    def __init__(self, secret: bytes) -> None:
        # A key of its own: the secret may serve other purposes as well.
        self._key = hmac.digest(secret, b"stationmaster page token v1", hashlib.sha256)

    def read(self, request: Message) -> PageRequest:
        """The page that a list request asks for.

        Raises InvalidArgument(PAGE_TOKEN_INVALID) for a token that was not made here for these arguments.
        """
        size: int = field_of(request, "page_size")
        token: str = field_of(request, "page_token")
        if size < 0:
            raise InvalidArgument.field("page_size", "must not be negative")
        return PageRequest(min(size or DEFAULT_SIZE, MAX_SIZE), self._open(request, token) if token else None)

    def next(self, request: Message, cursor: tuple[Any, ...] | None) -> str:
        """The token of the page after `cursor`; empty on the last page."""
        if cursor is None:
            return ""
        body = json.dumps([_pack(value) for value in cursor], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._tag(request, body) + body).rstrip(b"=").decode()

    def page(self, request: Message, page: Page[T], convert: Callable[[T], M]) -> tuple[list[M], str]:
        """The page's items as messages, and the token of the next page.

        What would be too large for one answer goes to the next page: a page may have fewer items than asked for.
        """
        messages: list[M] = []
        left = MAX_BYTES
        for item in page.items:
            message = convert(item)
            left -= message.ByteSize()
            if left < 0 and messages and page.cursors:
                return messages, self.next(request, page.cursors[len(messages) - 1])
            messages.append(message)
        return messages, self.next(request, page.next_cursor)

    def _open(self, request: Message, token: str) -> tuple[Any, ...]:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        tag, body = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(request, body)):
            raise InvalidArgument.field(
                "page_token",
                "was not made for these arguments; repeat those of the first page, or start again without a token",
                Reason.PAGE_TOKEN_INVALID,
            )
        return tuple(_unpack(kind, value) for kind, value in json.loads(body))

    def _tag(self, request: Message, body: bytes) -> bytes:
        arguments = hashlib.sha256(canonical(request, "page_token", "page_size")).digest()
        text = request.DESCRIPTOR.full_name.encode() + b"\0" + arguments + body
        return hmac.digest(self._key, text, hashlib.sha256)[:_TAG_BYTES]


def _pack(value: Any) -> tuple[str, Any]:
    match value:
        case UUID():
            return "u", str(value)
        case datetime():
            return "t", value.isoformat()
        case None | bool() | int() | float() | str():
            return "", value
    raise TypeError(f"a cursor cannot hold {type(value).__name__}")


def _unpack(kind: str, value: Any) -> Any:
    match kind:
        case "u":
            return UUID(value)
        case "t":
            return datetime.fromisoformat(value)
    return value
