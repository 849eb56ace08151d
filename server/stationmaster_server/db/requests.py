"""Request ids: a repeat of a mutation gets the first answer and changes nothing (contract rule 7).

In the transaction of the change: `recall` first, the change, `remember` last. Whether the caller may is asked after
`recall`, or after `first_answer` where asking takes a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg
from pydantic import TypeAdapter

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, Reason

__all__ = [
    "RequestKey",
    "claim_many",
    "first_answer",
    "forget",
    "forget_old",
    "known_fingerprint",
    "look",
    "recall",
    "remember",
    "remember_many",
]

T = TypeVar("T")

# Of two racing repeats the second waits here until the first has ended; then it either finds its row, or has the id.
_CLAIM = """
INSERT INTO request_ids AS known (organization_id, user_id, request_id, method, fingerprint)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (organization_id, user_id, request_id) DO UPDATE
   SET method = excluded.method, fingerprint = excluded.fingerprint, answer = NULL, created_at = now()
 WHERE known.created_at < now() - interval '24 hours'
RETURNING true
"""

_CLAIM_MANY = """
INSERT INTO request_ids (organization_id, user_id, request_id, method, fingerprint)
SELECT $1, $2, k.* FROM unnest($3::uuid[], $4::text[], $5::bytea[]) AS k(request_id, method, fingerprint)
ON CONFLICT (organization_id, user_id, request_id) DO NOTHING
RETURNING request_id
"""

_ANSWER = """
SELECT method, fingerprint, answer FROM request_ids
WHERE organization_id = $1 AND user_id = $2 AND request_id = $3 AND created_at >= now() - interval '24 hours'
"""

_REMEMBER = """
UPDATE request_ids SET answer = $4 WHERE organization_id = $1 AND user_id = $2 AND request_id = $3
"""

_REMEMBER_MANY = """
UPDATE request_ids r SET answer = a.answer::json FROM unnest($3::uuid[], $4::text[]) AS a(request_id, answer)
WHERE r.organization_id = $1 AND r.user_id = $2 AND r.request_id = a.request_id
"""


async def recall(tx: Transaction, tenant: Tenant, key: RequestKey | None, answer_type: type[T]) -> T | None:
    """The first answer to this request, or None: go on. To be the first statement of the transaction.

    InvalidArgument when the id was used for another request.
    """
    if key is None:
        return None
    identity = (tenant.organization_id, tenant.user_id, key.request_id)
    if await tx.fetchval(_CLAIM, *identity, key.method, key.fingerprint):
        return None
    row = await tx.fetchrow(_ANSWER, *identity)
    if row is None or row["answer"] is None:
        raise RuntimeError(f"{key.method} recalled request id {key.request_id} and committed without remember()")
    answer = _first_answer(row, key, answer_type)
    tx.audited = True  # with the first answer
    return answer


async def claim_many(tx: Transaction, tenant: Tenant, keys: Sequence[RequestKey | None]) -> list[bool]:
    """Take those of the ids that nobody has used, each once; tells of each request whether it may go on.

    The others are for `recall`, in a transaction of their own. To be the first statement of the transaction.
    """
    named = {key.request_id: key for key in reversed(keys) if key is not None}
    wanted = [named[request_id] for request_id in sorted(named)]  # in one order, or two servers wait for each other
    rows = await tx.fetch(
        _CLAIM_MANY,
        tenant.organization_id,
        tenant.user_id,
        [key.request_id for key in wanted],
        [key.method for key in wanted],
        [key.fingerprint for key in wanted],
    )
    taken = {row["request_id"] for row in rows}
    if not taken:
        tx.audited = True  # nothing was changed
    return [key is None or (key.request_id in taken and named[key.request_id] is key) for key in keys]


async def look(tx: Transaction, tenant: Tenant, key: RequestKey | None, answer_type: type[T]) -> T | None:
    """The first answer to this request, if there is one, without taking the id: for what must be done before `recall`.

    InvalidArgument when the id was used for another request.
    """
    if key is None:
        return None
    row = await tx.fetchrow(_ANSWER, tenant.organization_id, tenant.user_id, key.request_id)
    return None if row is None or row["answer"] is None else _first_answer(row, key, answer_type)


async def first_answer(database: Database, caller: Caller, answer_type: type[T]) -> T | None:
    """As `look`, by itself: before what a repeat must not be refused for, or must not do again."""
    if caller.request_key is None:
        return None
    async with database.tenant(caller.tenant, read=True) as tx:
        return await look(tx, caller.tenant, caller.request_key, answer_type)


async def known_fingerprint(tx: Transaction, tenant: Tenant, key: RequestKey) -> bytes | None:
    """The fingerprint under which the id is known, for whoever makes other ones than the call does."""
    sql = "SELECT fingerprint FROM request_ids WHERE organization_id = $1 AND user_id = $2 AND request_id = $3"
    found: bytes | None = await tx.fetchval(sql, tenant.organization_id, tenant.user_id, key.request_id)
    return found


async def remember(tx: Transaction, tenant: Tenant, key: RequestKey | None, answer: object) -> None:
    """Keep the answer (a dataclass of JSON-like fields) for repeats of the request within 24 hours."""
    if key is None:
        return
    document = _adapter(type(answer)).dump_python(answer, mode="json")
    await tx.execute(_REMEMBER, tenant.organization_id, tenant.user_id, key.request_id, document)


async def remember_many(
    tx: Transaction, tenant: Tenant, keys: Sequence[RequestKey | None], answers: Sequence[object]
) -> None:
    """As `remember`, of requests whose ids are claimed."""
    kept = [
        (key.request_id, _adapter(type(answer)).dump_json(answer).decode())
        for key, answer in zip(keys, answers, strict=True)
        if key is not None
    ]
    ids, documents = [request_id for request_id, _ in kept], [document for _, document in kept]
    await tx.execute(_REMEMBER_MANY, tenant.organization_id, tenant.user_id, ids, documents)


async def forget(tx: Transaction, tenant: Tenant, key: RequestKey | None) -> None:
    """Give the id free: nothing was done under it."""
    if key is not None:
        sql = "DELETE FROM request_ids WHERE organization_id = $1 AND user_id = $2 AND request_id = $3"
        await tx.execute(sql, tenant.organization_id, tenant.user_id, key.request_id)


async def forget_old(tx: Transaction) -> int:
    """Delete the ids that have expired; returns how many. For a system transaction, from time to time."""
    tag = await tx.execute("DELETE FROM request_ids WHERE created_at < now() - interval '24 hours'")
    return int(tag.rpartition(" ")[2])


def _first_answer(row: asyncpg.Record, key: RequestKey, answer_type: type[T]) -> T:
    if row["method"] != key.method or row["fingerprint"] != key.fingerprint:
        raise InvalidArgument.field(
            "request_id", "was used for another request within the last 24 hours", Reason.REQUEST_ID_REUSED
        )
    answer: T = _adapter(answer_type).validate_python(row["answer"])
    return answer


def _adapter(answer_type: type[Any]) -> TypeAdapter[Any]:
    known = _adapters.get(answer_type)
    if known is None:
        known = _adapters[answer_type] = TypeAdapter(answer_type)
    return known


_adapters: dict[type[Any], TypeAdapter[Any]] = {}
