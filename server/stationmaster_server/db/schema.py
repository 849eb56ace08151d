"""What every room declares its tables with: one metadata, tenant tables, and the security that follows."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, DateTime, MetaData, Table, Uuid, text
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import UserDefinedType

from stationmaster_server.db.roles import APP_ROLE, SYSTEM_ROLE

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

# The organization that the connection is set to; NULL, which equals nothing, when it is set to none.
CURRENT_ORGANIZATION = "NULLIF(current_setting('stationmaster.organization', true), '')::uuid"
CURRENT_USER_ID = "NULLIF(current_setting('stationmaster.user', true), '')::uuid"


EXTENSIONS_DDL = ("CREATE EXTENSION IF NOT EXISTS vector",)
"""What tables need of PostgreSQL beside itself."""


class Vector(UserDefinedType[object]):
    """pgvector's type."""

    cache_ok = True

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def get_col_spec(self, **_: object) -> str:
        """The type as SQL."""
        return f"VECTOR({self.dimensions})"


def tenant_table(
    name: str, *items: SchemaItem, partition_by_month: str | None = None, of_user: str | None = None
) -> Table:
    """A table of tenants: its primary key starts with `organization_id`; row-level security keeps tenants apart.

    `partition_by_month` names a timestamptz column, part of the primary key, by which the table is partitioned;
    `of_user` the column that says whose a row is, where row-level security keeps users apart as well.
    """
    organization = Column("organization_id", Uuid, primary_key=True, nullable=False)
    info: dict[str, object] = {"tenant": True}
    if of_user is not None:
        info["of_user"] = of_user
    if partition_by_month is None:
        return Table(name, metadata, organization, *items, info=info)
    info["partition_by_month"] = partition_by_month
    by = f"RANGE ({partition_by_month})"
    return Table(name, metadata, organization, *items, info=info, postgresql_partition_by=by)


def system_table(name: str, *items: SchemaItem) -> Table:
    """A table of the engines: tenant transactions cannot see it at all."""
    return Table(name, metadata, *items, info={"tenant": False})


def timestamp(
    name: str, *, nullable: bool = False, default_now: bool = False, primary_key: bool = False
) -> Column[object]:
    """A timestamptz column; `default_now` lets the database's clock fill it."""
    default = text("now()") if default_now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default, primary_key=primary_key)


def tenant_tables(tables: MetaData = metadata) -> list[Table]:
    """Every table that row-level security guards."""
    return [table for table in tables.sorted_tables if table.info.get("tenant")]


def partitioned_tables(tables: MetaData = metadata) -> list[Table]:
    """Every table that is partitioned by month."""
    return [table for table in tables.sorted_tables if "partition_by_month" in table.info]


def triggers_ddl(tables: MetaData = metadata) -> Iterator[str]:
    """What tables say under `triggers`: functions and triggers, made once every table is there."""
    for table in tables.sorted_tables:
        yield from table.info.get("triggers", ())


def security_ddl(tables: MetaData = metadata) -> Iterator[str]:
    """GRANTs and row-level security of every table, and the default partition of those that are partitioned.

    Partitions get no grant but MAINTAIN: they are read through their parent only, whose policies then hold.
    """
    for role in (APP_ROLE, SYSTEM_ROLE):
        yield f"GRANT USAGE ON SCHEMA public TO {role}"
    for table in tables.sorted_tables:
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {SYSTEM_ROLE}"
        if table.info.get("tenant"):
            yield from _tenant_security(table.name, table.info.get("of_user"))
    for table in partitioned_tables(tables):
        yield f"CREATE TABLE {table.name}_default PARTITION OF {table.name} DEFAULT"
    yield _MAINTAIN


# So that the engines may VACUUM and REINDEX what they do not own; before PostgreSQL 17 only autovacuum does.
_MAINTAIN = f"""
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO {SYSTEM_ROLE}';
  END IF;
END $$
"""


def _tenant_security(name: str, of_user: object) -> Iterator[str]:
    own = f"organization_id = {CURRENT_ORGANIZATION}" + (f" AND {of_user} = {CURRENT_USER_ID}" if of_user else "")
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {APP_ROLE}"
    yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
    # USING without WITH CHECK guards what is written as well.
    yield f"CREATE POLICY tenant ON {name} TO {APP_ROLE} USING ({own})"
    yield f"CREATE POLICY system ON {name} TO {SYSTEM_ROLE} USING (true)"
