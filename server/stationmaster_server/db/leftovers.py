"""Indexes that a REINDEX CONCURRENTLY left when it was ended: dropped by engines, through a function of the owner."""

from __future__ import annotations

from collections.abc import Iterator

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.roles import SYSTEM_ROLE

# Where one is under way, or a VACUUM, its lock on the table is seen, and the table passed over. Whoever waits to drop
# an index keeps all others from its table for so long: that is why it gives up soon; the next round tries again.
_FUNCTION = r"""
CREATE FUNCTION stationmaster_drop_leftovers() RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '100ms' AS $$
DECLARE
  leftover text;
  dropped text[] := '{}';
BEGIN
  FOR leftover IN
    SELECT format('public.%I', c.relname) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
    WHERE NOT x.indisvalid AND c.relnamespace = 'public'::regnamespace AND c.relname ~ '_cc(new|old)\d*$'
      AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = x.indrelid AND l.mode = 'ShareUpdateExclusiveLock'
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY 1
  LOOP
    BEGIN
      EXECUTE 'DROP INDEX ' || leftover;
      dropped := dropped || leftover;
    EXCEPTION WHEN lock_not_available OR undefined_object OR undefined_table OR insufficient_privilege THEN
      RAISE WARNING 'index % was not dropped: %', leftover, SQLERRM;
    END;
  END LOOP;
  RETURN dropped;
END $$
"""


def leftovers_ddl() -> Iterator[str]:
    """The function, for the system role alone."""
    yield _FUNCTION
    yield "REVOKE ALL ON FUNCTION stationmaster_drop_leftovers() FROM PUBLIC"
    yield f"GRANT EXECUTE ON FUNCTION stationmaster_drop_leftovers() TO {SYSTEM_ROLE}"


async def drop_leftovers(connection: Connection) -> list[str]:
    """Drop what ended reindexing left, on a connection of the engines; returns the names of what was dropped."""
    dropped: list[str] = await connection.fetchval("SELECT stationmaster_drop_leftovers()")
    return dropped
