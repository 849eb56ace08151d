"""Tells every server, after the commit, that tasks changed."""

from __future__ import annotations

from collections.abc import Callable

from stationmaster_server.db.transaction import Transaction

CHANNEL = "stationmaster_tasks"

Poke = Callable[[], None]


def nobody() -> None:
    """No target waits for changes."""


def tell(tx: Transaction, poke: Poke) -> None:
    """Once the transaction is committed."""
    if poke is not nobody:
        tx.after_commit(poke)
