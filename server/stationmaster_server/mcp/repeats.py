"""Request ids of tool calls: taken before the call is made, answered after it, and never called twice in between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stationmaster_server.db import requests
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, Reason
from stationmaster_server.mcp.model import CallResult, TextContent

_SLACK = timedelta(seconds=10)
_MOST_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call by its request id: until when it may be under way, or what it was answered."""

    until: datetime
    done: bool = False
    texts: tuple[str, ...] = ()
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    truncated: bool = False
    took: timedelta = timedelta(0)

    def result(self) -> tuple[CallResult, timedelta]:
        """The answer, and how long it took; Aborted(CONCURRENT_CHANGE, MCP_CALL_UNCERTAIN) when there is none (yet)."""
        if self.done:
            content = tuple(TextContent(text) for text in self.texts)
            return CallResult(content, self.structured, self.is_error, self.truncated), self.took
        if datetime.now(UTC) < self.until:
            raise Aborted(Reason.CONCURRENT_CHANGE, "the first call of this request id is under way: come again later")
        raise Aborted(
            Reason.MCP_CALL_UNCERTAIN,
            "whether the first call of this request id did its work is not known: look, then call with another id",
        )


async def look(tx: Transaction, caller: Caller) -> Call | None:
    """What is known of an earlier call of this request id."""
    return await requests.look(tx, caller.tenant, caller.request_key, Call)


async def begin(tx: Transaction, caller: Caller, limit: timedelta) -> Call | None:
    """Take the request id of a call that may last so long; what is known of an earlier one.

    To be the first statement of its transaction, which is committed before the call is made.
    """
    known = await requests.recall(tx, caller.tenant, caller.request_key, Call)
    if known is None:
        await requests.remember(tx, caller.tenant, caller.request_key, Call(datetime.now(UTC) + limit + _SLACK))
    return known


async def remember(tx: Transaction, caller: Caller, result: CallResult, took: timedelta) -> None:
    """Keep the answer for repeats: its texts and its data, up to 256 KiB; images and the like are left out."""
    texts = tuple(part.text for part in result.content if isinstance(part, TextContent))
    size = sum(map(len, texts)) + (0 if result.structured is None else len(json.dumps(result.structured)))
    fits = size <= _MOST_CHARACTERS
    whole = fits and len(texts) == len(result.content)
    answer = Call(
        until=datetime.now(UTC),
        done=True,
        texts=texts if fits else (),
        structured=result.structured if fits else None,
        is_error=result.is_error,
        truncated=result.truncated or not whole,
        took=took,
    )
    await requests.remember(tx, caller.tenant, caller.request_key, answer)


async def leave_uncertain(tx: Transaction, caller: Caller) -> None:
    """Nobody knows whether the call did its work: repeats are told so."""
    await requests.remember(tx, caller.tenant, caller.request_key, Call(datetime.now(UTC)))


async def forget(tx: Transaction, caller: Caller) -> None:
    """Nothing was called: a repeat is a first call."""
    await requests.forget(tx, caller.tenant, caller.request_key)
