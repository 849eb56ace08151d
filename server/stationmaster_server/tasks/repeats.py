"""What is submitted again under an idempotency key: the same gets the first execution, anything else is refused."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists
from stationmaster_server.tasks import execution_store
from stationmaster_server.tasks.execution_store import NewRow
from stationmaster_server.tasks.model import Execution, execution_name


async def require_same(tx: Transaction, organization_id: UUID, repeats: Sequence[tuple[NewRow, UUID, str]]) -> None:
    """Whether rows ask for what the executions that have their keys were submitted with. Raises AlreadyExists.

    Of a task the variables count, and not what has become of it since.
    """
    ids = sorted({execution_id for _, execution_id, _ in repeats})
    found = {one.id: one for one in await execution_store.get_many(tx, organization_id, ids)}
    secrets = await execution_store.secrets_of(tx, organization_id, ids)
    for row, execution_id, key in repeats:
        first = found.get(execution_id)
        if first is None:
            continue  # it is no execution: the key is its only trace
        if difference := _difference(row, first, same_secrets=secrets[execution_id] == dict(row.secrets)):
            name = execution_name(execution_id)
            text = (
                f"the idempotency key {key!r} is that of {name}, which was submitted with {difference}:"
                " choose another key, or repeat what was asked for then"
            )
            raise AlreadyExists("Execution", name, text)


def _difference(row: NewRow, first: Execution, *, same_secrets: bool) -> str:
    if row.task_uid != first.task_uid:
        return "another task" if row.task_uid and first.task_uid else f"{'no' if row.task_uid else 'a'} task"
    if row.task_uid is not None:
        return "" if row.variables == first.variables else "other variables"
    if row.kind != first.kind:
        return f"the kind {first.kind}"
    return "" if row.payload == first.payload and same_secrets else "another payload"
