"""Checkpoints and proofs: what an organization needs to know that its trail was not rewritten."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from stationmaster_server.audit import checkpoint_store, key_store, proof_store, store, tree_store
from stationmaster_server.audit.merkle import (
    Node,
    Range,
    consistency_ranges,
    cover,
    in_tile,
    inclusion_ranges,
    range_hash,
    tile_of,
)
from stationmaster_server.audit.model import Checkpoint, Leaf, LogKey, Proof
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
    Unavailable,
)
from stationmaster_server.identity.model import Caller


class Proofs:
    """Reads the trees."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(self) -> list[LogKey]:
        """The public keys, the one that signs first."""
        async with self._database.system(autocommit=True) as tx:
            return await key_store.keys(tx)

    async def checkpoint(self, caller: Caller, *, cosigned: bool = False) -> Checkpoint:
        """The newest checkpoint, or the newest that was cosigned; Unavailable(CHECKPOINT_PENDING) before the first."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await newest_checkpoint(tx, caller.tenant.organization_id, cosigned=cosigned)

    async def inclusion(self, caller: Caller, event_id: UUID, size: int) -> tuple[Leaf, Proof]:
        """That an event is in the tree of a size; 0: of the newest checkpoint.

        Raises NotFound, Unavailable(CHECKPOINT_PENDING) when it is not under that checkpoint yet, InvalidArgument.
        """
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            event = await store.get(tx, organization_id, event_id)
            leaf = await proof_store.leaf(tx, organization_id, event_id)
            if leaf is None:
                raise _pending() if event else NotFound("AuditEvent", f"auditEvents/{event_id}")
            of, note = await self._size(tx, organization_id, size, "tree_size")
            if leaf.sequence > of:
                raise InvalidArgument.field("tree_size", "the event came later") if size else _pending()
            ranges = inclusion_ranges(leaf.sequence - 1, of)
            return leaf, Proof(of, await hashes(tx, organization_id, ranges), note)

    async def consistency(self, caller: Caller, first: int, size: int) -> Proof:
        """That the tree of a size (0: of the newest checkpoint) grew from an earlier one. Raises InvalidArgument."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            of, note = await self._size(tx, organization_id, size, "second_size")
            if first > of:
                raise InvalidArgument.field("first_size", f"must be at most {of}, the second size")
            return Proof(of, await hashes(tx, organization_id, consistency_ranges(first, of)), note)

    async def _size(self, tx: Transaction, organization_id: UUID, size: int, field: str) -> tuple[int, str]:
        newest = await newest_checkpoint(tx, organization_id)
        if size > newest.size:
            raise InvalidArgument.field(field, f"must be at most {newest.size}, that of the newest checkpoint")
        return (size, "") if size not in (0, newest.size) else (newest.size, newest.best_note)


async def newest_checkpoint(tx: Transaction, organization_id: UUID, *, cosigned: bool = False) -> Checkpoint:
    """The newest checkpoint, or the newest that was cosigned; Unavailable(CHECKPOINT_PENDING) before the first."""
    found = await checkpoint_store.newest(tx, organization_id)
    if found is None:
        raise _pending()
    if cosigned and not found.cosigned_size:
        raise _not_cosigned()
    if not cosigned:
        return found
    root = b64decode(found.cosigned_note.split("\n", 3)[2])  # kept in its text alone
    signed_at = found.signed_at if found.cosigned_size == found.size else None
    return replace(found, size=found.cosigned_size, root=root, note=found.cosigned_note, signed_at=signed_at)


async def hashes(tx: Transaction, organization_id: UUID, ranges: Sequence[Range]) -> list[bytes]:
    """The hashes of ranges of a proof, of O(log n) tiles."""
    nodes = {node for each in ranges for node in cover(each)}
    tiles = await tree_store.tiles(tx, organization_id, {tile_of(node) for node in nodes}) if nodes else {}

    def node_of(node: Node) -> bytes:
        return in_tile(node, tiles[tile_of(node)])

    return [range_hash(each, node_of) for each in ranges]


def _not_cosigned() -> FailedPrecondition:
    why = "no witness has cosigned a checkpoint yet: see audit.witnesses of the server's settings"
    violation = PreconditionViolation("COSIGNATURE", "auditEvents", why)
    return FailedPrecondition(Reason.CHECKPOINT_NOT_COSIGNED, why, violation)


def _pending() -> Unavailable:
    text = "the newest events are not under a signed checkpoint yet; they are within about a second"
    return Unavailable(Reason.CHECKPOINT_PENDING, text, retry_after=timedelta(seconds=1))
