"""What the login of the server `database` could do besides reading, found in PostgreSQL's own catalogs.

A caller can leave the role again inside one query (`set_config('role', ...)`), and a query can run others
(`query_to_xml`). So what counts is not the role that is taken but everything that the login could become.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

_SHOWN = 5
_READS_AND_WRITES_ELSEWHERE = (
    "dblink",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_send_query",
    "http",
    "http_get",
    "http_post",
    "lo_export",
    "lo_import",
    "pg_create_restore_point",
    "pg_file_write",
    "pg_ls_dir",
    "pg_promote",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
)
"""Functions that a read-only transaction does not hold back: files, other servers, this server's own state."""

_ROLES = (
    "pg_checkpoint",
    "pg_create_subscription",
    "pg_execute_server_program",
    "pg_maintain",
    "pg_read_server_files",
    "pg_signal_autovacuum_worker",
    "pg_signal_backend",
    "pg_write_all_data",
    "pg_write_server_files",
)
_WRITES = "ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']"
_OURS = "NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%'"

# Each row: what it can do, and the statement that takes it away. `mine`: every role that the login is or can become.
_FAULTS = f"""
WITH mine AS MATERIALIZED (
    SELECT r.* FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
), oids AS (
    SELECT oid, quote_ident(rolname) AS name FROM mine UNION ALL SELECT 0, 'PUBLIC'
)
SELECT 'is a superuser' AS fault, format('use a login of its own: CREATE ROLE stationmaster_reader LOGIN') AS remedy
FROM mine WHERE rolsuper AND rolname = session_user
UNION ALL
SELECT * FROM (
    SELECT format('can act as %I, which may manage roles, databases or replication', rolname),
           format('REVOKE %I FROM %I, or ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION',
                  rolname, session_user, rolname)
    FROM mine WHERE rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication
    UNION ALL
    SELECT format('is a member of %I', rolname), format('REVOKE %I FROM %I', rolname, session_user)
    FROM mine WHERE rolname = ANY($1::text[])
    UNION ALL
    SELECT format('owns %I.%I', n.nspname, c.relname), format('ALTER TABLE %I.%I OWNER TO ...', n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relowner IN (SELECT oid FROM mine) AND n.nspname {_OURS}
    UNION ALL
    SELECT format('owns schema %I', n.nspname), format('ALTER SCHEMA %I OWNER TO ...', n.nspname)
    FROM pg_catalog.pg_namespace n WHERE n.nspowner IN (SELECT oid FROM mine) AND n.nspname {_OURS}
    UNION ALL
    SELECT format('has %s on %I.%I', a.privilege_type, n.nspname, c.relname),
           format('REVOKE %s ON %I.%I FROM %s', a.privilege_type, n.nspname, c.relname, o.name)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
         pg_catalog.aclexplode(c.relacl) a JOIN oids o ON o.oid = a.grantee
    WHERE n.nspname {_OURS} AND (a.privilege_type = ANY({_WRITES}) OR (c.relkind = 'S' AND a.privilege_type = 'USAGE'))
    UNION ALL
    SELECT format('has %s on column %I of %I.%I', a.privilege_type, t.attname, n.nspname, c.relname),
           format('REVOKE %s (%I) ON %I.%I FROM %s', a.privilege_type, t.attname, n.nspname, c.relname, o.name)
    FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
         pg_catalog.aclexplode(t.attacl) a JOIN oids o ON o.oid = a.grantee
    WHERE n.nspname {_OURS} AND a.privilege_type = ANY({_WRITES})
    UNION ALL
    SELECT format('may create in schema %I', n.nspname), format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname, o.name)
    FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a JOIN oids o ON o.oid = a.grantee
    WHERE n.nspname {_OURS} AND a.privilege_type = 'CREATE'
    UNION ALL
    SELECT format('may run %s', p.oid::regprocedure),
           format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC, %I', p.oid::regprocedure, session_user)
    FROM pg_catalog.pg_proc p
    WHERE (p.proname = ANY($2::text[])
           -- Heard by who decodes the log, whatever becomes of the transaction.
           OR (p.proname = 'pg_logical_emit_message' AND current_setting('wal_level') = 'logical'))
      AND EXISTS (SELECT FROM mine WHERE pg_catalog.has_function_privilege(mine.oid, p.oid, 'EXECUTE'))
) AS others
WHERE NOT EXISTS (SELECT FROM mine WHERE rolsuper AND rolname = session_user)
LIMIT {_SHOWN}
"""


class Connection(Protocol):
    """What is needed of a connection."""

    def fetch(self, sql: str, *args: object) -> Awaitable[Sequence[Any]]:
        """All rows."""


async def find_faults(connection: Connection) -> list[tuple[str, str]]:
    """What the login can do besides reading, at most five things, each with the statement that ends it."""
    rows = await connection.fetch(_FAULTS, list(_ROLES), list(_READS_AND_WRITES_ELSEWHERE))
    return [(row["fault"], row["remedy"]) for row in rows]
