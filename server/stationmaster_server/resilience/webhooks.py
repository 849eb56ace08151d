"""Webhooks as the Standard Webhooks specification has them: how a message is signed, and when to come again."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64


def read_secret(text: str) -> bytes:
    """The key in `whsec_…`. Raises ValueError, whose text does not have it."""
    try:
        secret = b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not (text.startswith(_PREFIX) and _SHORTEST <= len(secret) <= _LONGEST):
        raise ValueError(f"must be {_PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} bytes")
    return secret


def identified(message_id: str, at: datetime) -> dict[str, str]:
    """The headers of a message that nobody signs."""
    return {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp()))}


def signed(secret: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message; its receiver verifies them with the same secret."""
    headers = identified(message_id, at)
    content = f"{message_id}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    return {**headers, "webhook-signature": f"v1,{b64encode(digest).decode()}"}


def retry_after(value: str, date: str = "") -> float | None:
    """The seconds in a Retry-After header: a number, or a date, which counts from the response's own `date`."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
        since = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (until - since).total_seconds())
    except (TypeError, ValueError):
        return None
