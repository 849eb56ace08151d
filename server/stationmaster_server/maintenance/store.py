"""The queries of background services, all in system transactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.maintenance.model import (
    COUNTS,
    SILENT_FOR,
    Figures,
    OnServer,
    Scope,
    ServiceState,
    ServiceView,
    Settings,
)

CHANNEL = "background_services"
"""Notifications of services whose settings changed, or that are to run at once."""
_NOBODY = UUID(int=0)
_NOW = ("recent_seconds", "memory_growth_bytes", "handle_growth")
_SETTINGS = """enabled, paused, pause_reason, "interval", max_failures, retry_delay, alert_errors_per_hour,
               alert_run_time, alert_memory_growth_bytes, alert_handle_growth, own, etag, updated_at"""


async def all_settings(tx: Transaction) -> dict[str, Settings]:
    """The settings of every service that operators changed."""
    rows = await tx.fetch(f"SELECT service_id, {_SETTINGS} FROM background_services")
    return {row["service_id"]: Settings(*row[1:]) for row in rows}


LISTING = Listing(
    {
        "service": Field("b.service_id", str),
        "state": Field("b.state", ServiceState),
        "scope": Field("b.scope", Scope),
        "enabled": Field("b.enabled", bool),
    },
    key="b.service_id",
    key_type=str,
    default_order="service",
    order_fields=["service"],
)


async def list_of(
    tx: Transaction, views: Sequence[ServiceView], filter_text: str, order_by: str, page: PageRequest
) -> Page[str]:
    """A page of these services' ids. They are known to the server, not to the database, which filters and orders."""
    clause = LISTING.sql(filter_text, order_by, page, start=5)
    rows = await tx.fetch(
        f"""SELECT b.service_id, {clause.cursor_sql}
            FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[]) AS b(service_id, state, scope, enabled)
            WHERE {clause.where_sql} ORDER BY {clause.order_sql}""",
        [view.service_id for view in views],
        [view.state for view in views],
        [view.scope for view in views],
        [view.settings.enabled for view in views],
        *clause.args,
    )
    return clause.page(rows, lambda row: str(row["service_id"]))


async def lock_settings(tx: Transaction, service_id: str) -> Settings | None:
    """The settings of a service, which nobody else changes until this transaction ends; None: by default."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('background_services' || $1, 0))", service_id)
    row = await tx.fetchrow(f"SELECT {_SETTINGS} FROM background_services WHERE service_id = $1", service_id)
    return None if row is None else Settings(*row)


async def put_settings(tx: Transaction, service_id: str, new: Settings) -> Settings:
    """Change settings, whose etag is a new one then, and tell every server; the service is due at once."""
    row = await tx.fetchrow(
        f"""INSERT INTO background_services (service_id, {_SETTINGS})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, now())
            ON CONFLICT (service_id) DO UPDATE SET ({_SETTINGS}) =
                ROW ({", ".join(f"excluded.{column.strip()}" for column in _SETTINGS.split(","))})
            RETURNING {_SETTINGS}""",
        service_id,
        new.enabled,
        new.paused,
        new.pause_reason,
        new.interval,
        new.max_failures,
        new.retry_delay,
        new.alert_errors_per_hour,
        new.alert_run_time,
        new.alert_memory_growth_bytes,
        new.alert_handle_growth,
        dict(new.own),
        new_id(),
    )
    if row is None:
        raise RuntimeError("INSERT .. RETURNING gave no row")
    await tx.execute("UPDATE background_leases SET due_at = now() WHERE service_id = $1", service_id)
    await tell(tx, service_id)
    return Settings(*row)


async def tell(tx: Transaction, service_id: str) -> None:
    """Have every server look at the service's settings, and try again at once what fails."""
    await tx.execute("SELECT pg_notify($1, $2)", CHANNEL, service_id)


class Claimed(NamedTuple):
    """A lease, with how the service was when it was last run, on whichever server."""

    token: UUID
    failures_in_a_row: int
    told: frozenset[str]
    due_at: datetime


async def claim(tx: Transaction, service_id: str, lease: timedelta, *, early: bool = False) -> Claimed | None:
    """The lease of a service that is due (`early`: or is not) and that nobody runs; None: it is not to be had."""
    token = new_id()
    row = await tx.fetchrow(
        """INSERT INTO background_leases AS l (service_id, token, expires_at) VALUES ($1, $2, now() + $3::interval)
           ON CONFLICT (service_id) DO UPDATE SET token = $2, expires_at = now() + $3::interval
           WHERE ($4 OR l.due_at <= now()) AND (l.expires_at IS NULL OR l.expires_at < now())
           RETURNING failures_in_a_row, told, due_at""",
        service_id,
        token,
        lease,
        early,
    )
    return None if row is None else Claimed(token, row["failures_in_a_row"], frozenset(row["told"]), row["due_at"])


async def renew(tx: Transaction, service_id: str, token: UUID, lease: timedelta) -> bool:
    """Keep a lease; False: it is somebody else's."""
    sql = """UPDATE background_leases SET expires_at = now() + $3::interval WHERE service_id = $1 AND token = $2
             RETURNING true"""
    return bool(await tx.fetchval(sql, service_id, token, lease))


async def release(
    tx: Transaction, service_id: str, claimed: Claimed, pause: timedelta, failures: int, told: Collection[str]
) -> None:
    """Give a lease back; the service is due after the pause, or at once if its settings changed since it was claimed.

    Nothing if it is somebody else's.
    """
    await tx.execute(
        """UPDATE background_leases SET token = NULL, expires_at = NULL, failures_in_a_row = $5, told = $6,
               due_at = CASE WHEN due_at = $3 THEN now() + $4::interval ELSE due_at END
           WHERE service_id = $1 AND token = $2""",
        service_id,
        claimed.token,
        claimed.due_at,
        pause,
        failures,
        sorted(told),
    )


async def put_figures(tx: Transaction, server_id: UUID, figures: Mapping[str, Figures]) -> None:
    """What services did on a server since it started, or began to count anew."""
    columns = ", ".join(("state", *COUNTS, "failures_in_a_row", *_TIMES))
    await tx.execute(
        f"""INSERT INTO background_figures (service_id, server_id, {columns})
            SELECT service_id, $1, {columns} FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[],
                $6::bigint[], $7::bigint[], $8::float8[], $9::int[], $10::timestamptz[], $11::timestamptz[],
                $12::text[], $13::timestamptz[], $14::float8[], $15::bigint[], $16::int[]) AS new(service_id, {columns})
            ON CONFLICT (service_id, server_id) DO UPDATE SET ({columns}) =
                ROW ({", ".join(f"excluded.{column.strip()}" for column in columns.split(","))})""",
        server_id,
        list(figures),
        [one.state for one in figures.values()],
        *([getattr(one, name) for one in figures.values()] for name in (*COUNTS, "failures_in_a_row", *_TIMES)),
    )


async def put_error(tx: Transaction, service_id: str, error: str) -> int:
    """Keep an error for a day; returns how many the service had within the hour."""
    await tx.execute(
        "INSERT INTO background_errors (id, service_id, error) VALUES ($1, $2, $3)", new_id(), service_id, error
    )
    return (await errors_last_hour(tx, [service_id])).get(service_id, 0)


async def errors_last_hour(tx: Transaction, service_ids: Sequence[str]) -> dict[str, int]:
    """How many errors services had within the hour."""
    rows = await tx.fetch(
        """SELECT service_id, count(*) FROM background_errors
           WHERE service_id = ANY($1::text[]) AND at > now() - interval '1 hour' GROUP BY 1""",
        list(service_ids),
    )
    return {row[0]: row[1] for row in rows}


async def forget_errors(tx: Transaction) -> None:
    """Delete the errors that are older than a day."""
    await tx.execute("DELETE FROM background_errors WHERE at < now() - interval '1 day'")


async def all_figures(tx: Transaction) -> dict[str, tuple[Figures, list[OnServer]]]:
    """Of each service what it did in all, and how it is on each server."""
    rows = await tx.fetch(
        """SELECT f.*, s.name FROM background_figures f
           LEFT JOIN servers s ON s.server_id = f.server_id AND s.seen_at > now() - $1::interval
           ORDER BY s.started_at, s.name""",
        SILENT_FOR,
    )
    found: dict[str, tuple[Figures, list[OnServer]]] = {}
    for row in rows:
        total, servers = found.setdefault(row["service_id"], (Figures(), []))
        one = _figures(row)
        _add(total, one)
        if row["name"] is not None:
            servers.append(OnServer(row["name"], one))
    return found


async def drop_servers(tx: Transaction, silent_for: timedelta, server_id: UUID | None = None) -> None:
    """Forget servers that said nothing for so long, or one; what their services did stays in the totals."""
    gone = await tx.fetch(
        "DELETE FROM servers WHERE server_id = $1 OR $1 IS NULL AND seen_at < now() - $2::interval RETURNING server_id",
        server_id,
        silent_for,
    )
    if not gone:
        return
    # Servers that leave at the same time add to the totals one after the other.
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('background_figures', 0))")
    rows = await tx.fetch(
        "DELETE FROM background_figures WHERE server_id = ANY($1::uuid[]) OR server_id = $2 RETURNING *",
        [row[0] for row in gone],
        _NOBODY,
    )
    totals: dict[str, Figures] = {}
    for row in rows:
        _add(totals.setdefault(row["service_id"], Figures()), _figures(row))
    await put_figures(tx, _NOBODY, totals)


_TIMES = ("last_run_at", "last_success_at", "last_error", "last_error_at", *_NOW)


def _figures(row: Any) -> Figures:
    names = ("completed", "failed", "retried", "restarted", "busy_seconds", "failures_in_a_row", *_TIMES)
    return Figures(ServiceState(row["state"]), *(row[name] for name in names))


def _add(total: Figures, one: Figures) -> None:
    for name in COUNTS:
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.last_run_at = _later(total.last_run_at, one.last_run_at)
    total.last_success_at = _later(total.last_success_at, one.last_success_at)
    if one.last_error_at and (total.last_error_at is None or one.last_error_at > total.last_error_at):
        total.last_error, total.last_error_at = one.last_error, one.last_error_at


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)
