"""The audit trail: written with every change and every refusal, and read by those who may."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.audit import store
from stationmaster_server.audit.listing import LISTING
from stationmaster_server.audit.model import AuditBatch, AuditEntry, AuditEvent
from stationmaster_server.audit.refusals import RefusalWriter
from stationmaster_server.audit.rows import make_row
from stationmaster_server.audit.sequencer import Sequencer
from stationmaster_server.audit.watching import Watches
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.identity.model import Caller
from stationmaster_server.resilience.pulse import Pulse


class AuditLog:
    """Writes the trail. One for each process; `start` and `close` it."""

    def __init__(self, database: Database, *, sequence: bool = True) -> None:
        """`sequence`: give events their places here too, and not on other servers alone."""
        self._sequence = sequence
        self._sequencer = Sequencer(database)
        self._refusals = RefusalWriter(database, self._sequencer.wake)

    @property
    def pulse(self) -> Pulse | None:
        """Of what gives events their places; None where that is not done."""
        return self._sequencer.pulse if self._sequence else None

    async def start(self) -> None:
        """Begin to give events their places."""
        if self._sequence:
            self._sequencer.start()

    async def close(self) -> None:
        """Write what waits, give it its place, and stop."""
        await self._refusals.close()
        await self._sequencer.close()

    async def write(
        self, tx: Transaction, caller: Caller, entry: AuditEntry, *, organization_id: UUID | None = None
    ) -> UUID:
        """Write an event in the transaction of the change it tells of; returns its id.

        It goes to the caller's organization, or to another that a system transaction acts in.
        """
        row = make_row(caller, entry, organization_id)
        await store.write(tx, row)
        tx.audited = True
        tx.after_commit(self._sequencer.wake)
        return row.id

    async def write_many(self, tx: Transaction, entries: Sequence[tuple[Caller, AuditEntry]]) -> None:
        """Write several events of the transaction's change, each of its caller's organization, in one statement."""
        rows = [make_row(caller, entry) for caller, entry in entries]
        await store.write_many(tx, rows, [to_json(row.details).decode() for row in rows])
        tx.audited = True
        tx.after_commit(self._sequencer.wake)

    async def write_refusal(self, caller: Caller, entry: AuditEntry) -> None:
        """Write an event that belongs to no change; it is committed when this returns.

        Unavailable when it cannot be: then the caller gets that, never an answer without its event.
        """
        await self._refusals.write(make_row(caller, entry))

    write_alone = write_refusal
    """The same, of what is no refusal: a secret that is read."""


class AuditTrail:
    """Reads the trail."""

    def __init__(self, database: Database, listener: Listener, *, keepalive: timedelta = timedelta(seconds=15)) -> None:
        self._database = database
        self._watches = Watches(database, listener, keepalive=keepalive)

    async def start(self) -> None:
        """Begin to look for what is new."""
        self._watches.start()

    async def close(self) -> None:
        """End the watches."""
        await self._watches.close()

    @property
    def watched(self) -> int:
        """How many organizations are watched here."""
        return self._watches.watched

    async def get(self, caller: Caller, event_id: UUID) -> AuditEvent:
        """One event of the caller's organization, or NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            event = await store.get(tx, caller.tenant.organization_id, event_id)
        if event is None:
            raise NotFound("AuditEvent", f"auditEvents/{event_id}")
        return event

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[AuditEvent]:
        """A page of the organization's events, newest first by default."""
        clause = LISTING.sql(filter_text, order_by, page, start=2)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_events(tx, caller.tenant.organization_id, clause)

    def watch(self, caller: Caller, filter_text: str, after: int | None) -> AsyncGenerator[AuditBatch, None]:
        """The organization's events after a sequence (None: from now on), then those to come; see `Watches.watch`."""
        clause = LISTING.sql(filter_text, "", PageRequest(1), start=4)
        # The last argument is the limit of a page, which a watch has not.
        return self._watches.watch(caller.tenant, after, clause.where_sql, clause.args[:-1])
