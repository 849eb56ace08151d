"""The first schema."""

from __future__ import annotations

from alembic import op
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.partitions import partitions_ddl
from stationmaster_server.db.roles import roles_ddl
from stationmaster_server.db.schema import security_ddl

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make everything."""
    metadata = load()
    for statement in roles_ddl():
        op.execute(statement)
    metadata.create_all(op.get_bind())
    for statement in (*security_ddl(metadata), *partitions_ddl()):
        op.execute(statement)
