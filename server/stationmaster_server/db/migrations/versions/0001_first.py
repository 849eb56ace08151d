"""The first schema, as `scripts/freeze_schema.py` wrote it down."""

from __future__ import annotations

from pathlib import Path

from alembic import op
from stationmaster_server.db.migrate import first_schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make everything."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").removesuffix(";\n").split(";\n\n")
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)
    op.create_table_comment("alembic_version", first_schema())
