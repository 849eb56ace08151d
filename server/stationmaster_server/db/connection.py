"""Connections: how one is opened, and what it remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from stationmaster_server.db.errors import NotMigrated, translate, unavailable
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.roles import APP_ROLE, SYSTEM_ROLE

if TYPE_CHECKING:
    _DriverConnection = asyncpg.Connection[asyncpg.Record]
else:
    _DriverConnection = asyncpg.Connection

OPEN_TIMEOUT = timedelta(seconds=10)
_STATEMENTS_KEPT = 1000  # prepared statements of one connection: more than the queries of all rooms together
# The index of vectors holds those of all tenants: it is read on until enough of this one's are found.
_SEARCH_ON = {"hnsw.iterative_scan": "relaxed_order", "hnsw.max_scan_tuples": "200000", "hnsw.ef_search": "100"}
_CANNOT_TAKE_ROLE = (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError)


class Connection(_DriverConnection):
    """A connection that remembers the tenant its session is set to; None: unknown or none."""

    tenant: Tenant | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How the connections of one pool are opened."""

    url: str
    role: str
    settings: dict[str, str]
    command_timeout: timedelta | None

    async def open(self) -> Connection:
        """A fresh connection in the role; Unavailable when the database cannot be reached or is full."""
        try:
            return await self._open()
        except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
            raise unavailable() from error  # where it is, and why it is away, is no caller's business
        except _CANNOT_TAKE_ROLE as error:
            raise NotMigrated(
                f"the database login cannot take the role {self.role}: {error}. Run `stationmaster-server migrate`"
                f" with a login that may create roles, or GRANT {self.role} to this one"
            ) from error
        except asyncpg.PostgresError as error:
            ours = translate(error)
            if ours is None:
                raise
            raise ours from error

    async def _open(self) -> Connection:
        connection: Connection = await asyncpg.connect(
            self.url,
            connection_class=Connection,
            server_settings={"role": self.role, "jit": "off", "timezone": "UTC", **self.settings},
            timeout=OPEN_TIMEOUT.total_seconds(),
            command_timeout=self.command_timeout.total_seconds() if self.command_timeout else None,
            statement_cache_size=_STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,
        )
        for json_type in ("json", "jsonb"):
            await connection.set_type_codec(json_type, encoder=_dump, decoder=json.loads, schema="pg_catalog")
        return connection


_dump: Any = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)


def tenant_opening(url: str, statement_timeout: timedelta) -> Opening:
    """Sessions of tenants: row-level security holds, and what was not begun as a writing transaction cannot write."""
    settings = {"default_transaction_read_only": "on", **_SEARCH_ON}
    return _opening(url, APP_ROLE, statement_timeout, settings)


def system_opening(url: str, statement_timeout: timedelta) -> Opening:
    """Sessions of the engines, which see all tenants."""
    return _opening(url, SYSTEM_ROLE, statement_timeout, {})


def _opening(url: str, role: str, statement_timeout: timedelta, settings: dict[str, str]) -> Opening:
    limit = f"{int(statement_timeout.total_seconds() * 1000)}ms"
    guarded = {"statement_timeout": limit, "idle_in_transaction_session_timeout": limit, "application_name": role}
    # The client's limit is for a peer that is silent (a cut cable); the server's own answers first.
    return Opening(url, role, guarded | settings, command_timeout=statement_timeout + timedelta(seconds=5))
