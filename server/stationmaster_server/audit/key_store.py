"""The queries of the public keys that checkpoints are, and were, signed with: in system transactions."""

from __future__ import annotations

from stationmaster_server.audit.model import LogKey
from stationmaster_server.db.transaction import Transaction

_LOCK = 0x41554B59  # any number of our own


async def lock(tx: Transaction) -> None:
    """Keep every other server from changing the keys until this transaction ends."""
    await tx.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def keys(tx: Transaction) -> list[LogKey]:
    """Every key, the one that signs first, then the newest first."""
    sql = """SELECT public_key, created_at, retired_at FROM audit_keys
             ORDER BY is_active DESC, created_at DESC"""
    return [LogKey(**dict(row)) for row in await tx.fetch(sql)]


async def active(tx: Transaction) -> bytes | None:
    """The public key that checkpoints are signed with; None before the first."""
    key: bytes | None = await tx.fetchval("SELECT public_key FROM audit_keys WHERE is_active")
    return key


async def activate(tx: Transaction, public_key: bytes) -> None:
    """Sign with this key from now on."""
    await tx.execute("UPDATE audit_keys SET is_active = false, retired_at = now() WHERE is_active")
    await tx.execute("INSERT INTO audit_keys (public_key, is_active) VALUES ($1, true)", public_key)
