"""The trail as files: JSON lines and CSV to work with, and bundles that anybody can verify offline."""

from __future__ import annotations

import csv
import io
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from stationmaster_server.audit import proof_store
from stationmaster_server.audit.listing import LISTING
from stationmaster_server.audit.merkle import Range, cover
from stationmaster_server.audit.model import AuditEntry, Category, Checkpoint, ExportFormat, Leaf
from stationmaster_server.audit.notes import origin_of
from stationmaster_server.audit.proofs import hashes, newest_checkpoint
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import Caller

BUNDLE = "stationmaster-audit-bundle/1"
_PAGE = 500
_MESSAGE_CHARACTERS = 256 * 1024
_COLUMNS = (
    *("sequence", "id", "time", "category", "action", "outcome", "actor", "on_behalf_of", "api_key", "method"),
    *("resource", "reason", "request_id", "peer", "details"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Exported(NamedTuple):
    """Some lines of a file, and the last sequence that was looked at."""

    lines: list[str]
    last_sequence: int


class _Page(NamedTuple):
    """Lines, each with the sequence that it brings the file up to, and the last sequence that was looked at."""

    lines: list[tuple[int, str]]
    last_sequence: int


class Exporting:
    """Exports an organization's trail, and writes that into it first."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    async def export(
        self, caller: Caller, form: ExportFormat, filter_text: str, after: int, *, cosigned: bool = False
    ) -> AsyncGenerator[Exported, None]:
        """The events after a sequence that are under the newest checkpoint, as the lines of a file.

        `cosigned`: under the newest one that witnesses cosigned. Raises InvalidArgument (a bundle has no holes),
        Unavailable(CHECKPOINT_PENDING).
        """
        if filter_text and form is ExportFormat.BUNDLE:
            raise InvalidArgument.field("filter", "a bundle has no holes: export it whole, or as JSON lines or CSV")
        clause = LISTING.sql(filter_text, "", PageRequest(1), start=4)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            checkpoint = await newest_checkpoint(tx, caller.tenant.organization_id, cosigned=cosigned)
        if after > checkpoint.size:
            raise InvalidArgument.field("after_sequence", f"must be at most {checkpoint.size}, the newest")
        details = {"format": form.value, "filter": filter_text, "after": after, "size": checkpoint.size}
        entry = AuditEntry("audit.export", "auditEvents", category=Category.COMPLIANCE, details=details)
        await self._audit.write_alone(caller, entry)
        if form is ExportFormat.BUNDLE:
            pages = self._bundle(caller, checkpoint, after)
        else:
            render = _json_line if form is ExportFormat.JSON_LINES else _csv_line
            head = [_csv(_COLUMNS)] if form is ExportFormat.CSV else []
            # The last argument is the limit of a page, which an export has not.
            pages = self._lines(caller, checkpoint, after, clause.where_sql, clause.args[:-1], head, render)
        async for page in pages:
            for part in _parts(page):
                yield part

    async def _lines(
        self,
        caller: Caller,
        checkpoint: Checkpoint,
        after: int,
        where_sql: str,
        args: Sequence[Any],
        head: list[str],
        render: Callable[[int, str], str],
    ) -> AsyncGenerator[_Page, None]:
        yield _Page([(after, line) for line in head], after)
        for first in range(after, checkpoint.size, _PAGE):
            last = min(first + _PAGE, checkpoint.size)
            async with self._database.tenant(caller.tenant, read=True) as tx:
                found = await proof_store.bodies(tx, caller.tenant.organization_id, first, last, where_sql, args)
            yield _Page([(sequence, render(sequence, body)) for sequence, body in found], last)

    async def _bundle(self, caller: Caller, checkpoint: Checkpoint, after: int) -> AsyncGenerator[_Page, None]:
        organization_id = caller.tenant.organization_id
        left = [Range(node.number << node.level, (node.number + 1) << node.level) for node in cover(Range(0, after))]
        async with self._database.tenant(caller.tenant, read=True) as tx:
            before = await hashes(tx, organization_id, left)
        head = _line(
            format=BUNDLE,
            origin=origin_of(organization_id),
            after=after,
            size=checkpoint.size,
            left=[b64encode(each).decode() for each in before],
        )
        yield _Page([(after, head)], after)
        for first in range(after, checkpoint.size, _PAGE):
            last = min(first + _PAGE, checkpoint.size)
            async with self._database.tenant(caller.tenant, read=True) as tx:
                leaves = await proof_store.leaves(tx, organization_id, first, last)
            yield _Page([(leaf.sequence, _leaf_line(leaf)) for leaf in leaves], last)
        yield _Page([(checkpoint.size, _line(checkpoint=checkpoint.best_note))], checkpoint.size)


def _leaf_line(leaf: Leaf) -> str:
    time = microseconds(leaf.created_at)
    place = {"sequence": leaf.sequence, "id": str(leaf.event_id), "time": time}
    if leaf.salt is None or leaf.body is None:
        return _line(**place, commitment=b64encode(leaf.commitment).decode())
    return _line(**place, salt=b64encode(leaf.salt).decode(), body=leaf.body)


def microseconds(moment: datetime) -> int:
    """A moment as the format has it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _line(**values: object) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


def _json_line(sequence: int, body: str) -> str:
    return f'{{"sequence":{sequence},{body[1:]}\n'


def _csv_line(sequence: int, body: str) -> str:
    event = {"sequence": sequence, **json.loads(body)}
    event["time"] = (_EPOCH + timedelta(microseconds=event["time"])).isoformat()
    event["details"] = json.dumps(event["details"], ensure_ascii=False, separators=(",", ":"))
    return _csv([_harmless(str(event[column])) for column in _COLUMNS])


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()


def _parts(page: _Page) -> Iterator[Exported]:
    """The page in messages of a bounded size, none of them empty."""
    lines: list[str] = []
    characters = up_to = 0
    for sequence, line in page.lines:
        if lines and characters + len(line) > _MESSAGE_CHARACTERS:
            yield Exported(lines, up_to)
            lines, characters = [], 0
        lines.append(line)
        characters += len(line)
        up_to = sequence
    if lines:
        yield Exported(lines, page.last_sequence)
