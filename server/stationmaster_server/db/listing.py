"""Lists: a filter, one order, and pages by key instead of offset, so that inserts neither repeat nor skip a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg

from stationmaster_server.db.filters import Field, filter_sql
from stationmaster_server.errors import InvalidArgument, Reason

__all__ = ["Clause", "Field", "Listing", "Page", "PageRequest"]

T = TypeVar("T")

Cursor = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many items, and after which: the cursor of the page before, or None for the first."""

    size: int
    after: Cursor | None = None

    def skipped(self) -> int:
        """Of a ranking: how many items the pages before had. Raises InvalidArgument(PAGE_TOKEN_INVALID)."""
        match self.after:
            case None:
                return 0
            case (int() as count,):
                return count
        raise InvalidArgument.field("page_token", "is of another list", Reason.PAGE_TOKEN_INVALID)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor of the next page, or None when there is none.

    `cursors` has one for each item: where the next page begins when this one is cut after it.
    """

    items: list[T]
    next_cursor: Cursor | None
    cursors: Sequence[Cursor] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """The parts of a list's query.

    `SELECT {columns}, {cursor_sql} FROM t WHERE organization_id = $1 AND {where_sql} ORDER BY {order_sql}`, with `args`
    after the query's own. `order_sql` ends with the LIMIT: one more than the page, to see whether there is more.
    """

    where_sql: str
    order_sql: str
    cursor_sql: str
    args: list[Any]
    size: int

    def page(self, rows: list[asyncpg.Record], item: Callable[[asyncpg.Record], T]) -> Page[T]:
        """The page of the rows that the query gave."""
        kept = rows[: self.size]
        more = len(rows) > self.size
        cursors = [(row["cursor_value"], row["cursor_key"]) for row in kept]
        return Page([item(row) for row in kept], cursors[-1] if more else None, cursors)


class Listing:
    """What can be filtered and ordered by in one list.

    `key` is the SQL of a unique column, of type `key_type`, that breaks ties.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        key: str,
        default_order: str,
        key_type: type = UUID,
        order_fields: Iterable[str] | None = None,
    ) -> None:
        self._fields = fields
        self._key = Field(key, key_type)
        self._default_order = default_order
        self._order_fields = frozenset(fields if order_fields is None else order_fields)

    def sql(self, filter_text: str, order_by: str, page: PageRequest, *, start: int = 1) -> Clause:
        """The clause of one request; its placeholders are numbered from `start`.

        InvalidArgument: INVALID_FILTER, INVALID_ORDER_BY, or PAGE_TOKEN_INVALID for a cursor of another order.
        """
        args: list[Any] = []

        def bind(value: object, cast: str = "") -> str:
            args.append(value)
            return f"${start + len(args) - 1}{cast}"

        order, descending = self._order(order_by or self._default_order)
        conditions = [condition for condition in (filter_sql(filter_text, self._fields, bind),) if condition]
        if page.after is not None:
            value, key = self._cursor(order, page.after)
            sign = "<" if descending else ">"
            conditions.append(f"({order.sql}, {self._key.sql}) {sign} ({bind(value)}, {bind(key)})")
        direction = "DESC" if descending else "ASC"
        limit = bind(page.size + 1, "::bigint")
        return Clause(
            where_sql=" AND ".join(conditions) or "true",
            order_sql=f"{order.sql} {direction}, {self._key.sql} {direction} LIMIT {limit}",
            cursor_sql=f"{order.sql} AS cursor_value, {self._key.sql} AS cursor_key",
            args=args,
            size=page.size,
        )

    def _order(self, order_by: str) -> tuple[Field, bool]:
        match order_by.split():
            case [name] if name in self._order_fields:
                return self._fields[name], False
            case [name, ("asc" | "desc") as direction] if name in self._order_fields:
                return self._fields[name], direction == "desc"
        known = ", ".join(sorted(self._order_fields))
        raise InvalidArgument.field(
            "order_by", f"expected one field, then `desc` or nothing; fields: {known}", Reason.INVALID_ORDER_BY
        )

    def _cursor(self, order: Field, cursor: Cursor) -> Cursor:
        if len(cursor) != 2 or not _is(order.type, cursor[0]) or not _is(self._key.type, cursor[1]):
            raise InvalidArgument.field("page_token", "is of another list or order", Reason.PAGE_TOKEN_INVALID)
        return cursor


def _is(kind: type, value: object) -> bool:
    if kind in (str, int, float, bool) or kind.__module__ in ("datetime", "uuid"):
        return isinstance(value, kind)
    return isinstance(value, str | int)  # an enum's value
