"""Monthly partitions: made ahead of time and dropped by engines, which own no table, through functions of the owner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.db.roles import SYSTEM_ROLE
from stationmaster_server.db.transaction import Transaction

_FUNCTION = """
CREATE FUNCTION stationmaster_ensure_partitions(parent text, months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $$
DECLARE
  first timestamp;
  partition text;
  made integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(format('public.%I', parent))) THEN
    RAISE EXCEPTION '% is not partitioned', parent USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('stationmaster_partitions'));
  FOR ahead IN 0 .. months_ahead LOOP
    first := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead);
    partition := parent || to_char(first, '_YYYY_MM');
    CONTINUE WHEN to_regclass(format('public.%I', partition)) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                     first || '+00', first + interval '1 month' || '+00');
      IF current_setting('server_version_num')::int >= 170000 THEN  -- each is vacuumed by its own grants
        EXECUTE format('GRANT MAINTAIN ON public.%I TO stationmaster_system', partition);
      END IF;
      made := made + 1;
    EXCEPTION WHEN check_violation THEN
      -- Rows of the month came before its partition: they, and those to come, stay in the default partition.
      RAISE WARNING 'the rows of % are in the default partition', partition;
    END;
  END LOOP;
  RETURN made;
END $$
"""

_DROP_FUNCTION = r"""
CREATE FUNCTION stationmaster_drop_partitions(parent text, older_than interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $$
DECLARE
  partition text;
  dropped integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(format('public.%I', parent))) THEN
    RAISE EXCEPTION '% is not partitioned', parent USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('stationmaster_partitions'));
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(format('public.%I', parent)) AND c.relname ~ ('^' || parent || '_\d{4}_\d{2}$')
      AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= (now() - older_than) AT TIME ZONE 'UTC'
  LOOP
    EXECUTE format('DROP TABLE public.%I', partition);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$
"""


def partitions_ddl() -> Iterator[str]:
    """The functions, for the system role alone."""
    yield _FUNCTION
    yield _DROP_FUNCTION
    for signature in (
        "stationmaster_ensure_partitions(text, integer)",
        "stationmaster_drop_partitions(text, interval)",
    ):
        yield f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION {signature} TO {SYSTEM_ROLE}"


async def ensure_partitions(tx: Transaction, table: str, months_ahead: int) -> int:
    """Make the partitions of this month and the next ones where they are missing; returns how many were made.

    For a system transaction, at start and at least once a month. Aborted when readers hold the table for too long.
    """
    made: int = await tx.fetchval("SELECT stationmaster_ensure_partitions($1, $2)", table, months_ahead)
    return made


async def drop_partitions(tx: Transaction, table: str, older_than: timedelta) -> int:
    """Drop the partitions of the months in which everything is older; returns how many (a system transaction).

    Aborted when readers hold the table for too long.
    """
    dropped: int = await tx.fetchval("SELECT stationmaster_drop_partitions($1, $2)", table, older_than)
    return dropped


async def ensure_every_partition(database: Database, months_ahead: int) -> int:
    """`ensure_partitions` of each table that is partitioned, each by itself.

    One that held the locks of two tables at once could be in a deadlock with those who write to both.
    """
    async with database.system(autocommit=True) as tx:
        tables = await tx.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'p' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return sum([await ensure_partitions(tx, row["relname"], months_ahead) for row in tables])
