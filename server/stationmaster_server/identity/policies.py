"""What the rules about tools of a user and its organization say of a call that is made directly."""

from __future__ import annotations

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity import policy_store
from stationmaster_server.identity.model import Effect, strictest


async def denied(tx: Transaction, caller: Caller, tool: str) -> str | None:
    """Why the rules of the caller or its organization forbid that it calls a tool directly; None when they do not.

    Only DENY forbids: whoever calls a tool itself is a person or program that need not be asked.
    """
    rules = await policy_store.above(tx, caller.tenant)
    if strictest(rules, tool, Effect.ALLOW) is not Effect.DENY:
        return None
    return f"A tool policy of the user or the organization denies {tool}."
