"""Write the first migration from the declared tables: until the first release, run this after changing a `tables.py`.

From the first release on, that file is history, and a change of the schema is a new revision beside it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_mock_engine
from sqlalchemy.schema import CreateIndex, CreateTable
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.leftovers import leftovers_ddl
from stationmaster_server.db.migrations.run import FOLDER
from stationmaster_server.db.partitions import partitions_ddl
from stationmaster_server.db.roles import roles_ddl
from stationmaster_server.db.schema import EXTENSIONS_DDL, security_ddl, triggers_ddl

TARGET = FOLDER / "versions" / "0001_first.sql"
SEPARATOR = ";\n\n"


def statements() -> Iterator[str]:
    """Roles, extensions, tables, indexes, partitions and security, in the order in which they can be made."""
    metadata = load()
    dialect = create_mock_engine("postgresql+asyncpg://", lambda *_: None).dialect
    yield from roles_ddl()
    yield from EXTENSIONS_DDL
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=dialect))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield str(CreateIndex(index).compile(dialect=dialect))
    yield from triggers_ddl(metadata)
    yield from security_ddl(metadata)
    yield from partitions_ddl()
    yield from leftovers_ddl()


def write(target: Path) -> None:
    """Write the statements, each ended by a semicolon and an empty line."""
    tidy = ["\n".join(line.rstrip() for line in statement.strip().splitlines()) for statement in statements()]
    if any(SEPARATOR in statement for statement in tidy):
        sys.exit("a statement contains an empty line after a semicolon, which separates statements")
    target.write_text(SEPARATOR.join(tidy).replace("\t", "    ") + ";\n")


if __name__ == "__main__":
    write(TARGET)
