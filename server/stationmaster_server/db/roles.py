"""The two roles that the pools take: neither can log in, bypass row-level security, or make anything."""

from __future__ import annotations

from collections.abc import Iterator

APP_ROLE = "stationmaster_app"
SYSTEM_ROLE = "stationmaster_system"

# With PostgreSQL 16 being a member and being allowed to SET ROLE became two things.
_ROLE_DDL = """
DO $$
DECLARE
  privilege text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
    BEGIN
      CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database of the same PostgreSQL was migrated at the same moment
    END;
  END IF;
  IF NOT pg_has_role(current_user, '{role}', privilege) THEN
    GRANT {role} TO CURRENT_USER;
  END IF;
END $$
"""


def roles_ddl() -> Iterator[str]:
    """Make the roles (of the whole PostgreSQL, not of one database) when they are missing, and grant them."""
    for role in (APP_ROLE, SYSTEM_ROLE):
        yield _ROLE_DDL.format(role=role)
