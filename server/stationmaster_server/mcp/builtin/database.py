"""The MCP server `database`: read-only SQL for agents and callers."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from stationmaster_server.mcp.builtin import text
from stationmaster_server.mcp.builtin.database_rows import Rows
from stationmaster_server.mcp.builtin.database_store import Parameter, QueryRefused, ReadOnlyDatabase

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_MAX_SQL = 100_000

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name,
       CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                      ELSE 'table' END AS kind,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END AS estimated_rows,
       obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
  AND CASE WHEN $1 = '' THEN n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%'
           ELSE n.nspname = $1 END
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
       pg_get_expr(d.adbin, d.adrelid) AS "default",
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY(i.indkey)) AS key,
       (SELECT string_agg(pg_get_constraintdef(k.oid), '; ') FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY(k.conkey)) AS refers_to,
       col_description(c.oid, a.attnum) AS comment
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
WHERE c.oid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY a.attnum
"""


class ColumnInfo(BaseModel):
    """A column of a result."""

    name: str
    type: str


class QueryResult(BaseModel):
    """The rows of a query, as lists in the order of the columns."""

    columns: list[ColumnInfo]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    notes: list[str]


def make_server(database: ReadOnlyDatabase) -> MCPServer:
    """The server, as one tenant sees it."""
    server = MCPServer(
        "database",
        title="Database (read only)",
        instructions="Read-only SQL on PostgreSQL. Begin with list_tables and describe_table. Nothing can be changed.",
    )

    @server.tool(annotations=_READS)
    async def query(
        sql: Annotated[
            str, Field(description="One SQL query (SELECT, WITH, VALUES, TABLE); values as $1, $2", max_length=_MAX_SQL)
        ],
        parameters: Annotated[
            list[Parameter], Field(description="The values of $1, $2, ..., in their order", max_length=200)
        ] = [],  # noqa: B006 - copied for each call, by pydantic
    ) -> Annotated[CallToolResult, QueryResult]:
        """Run one read-only SQL query and return its rows; long results and values are cut, and say so."""
        return _result(await _run(database, sql, parameters))

    @server.tool(annotations=_READS)
    async def list_tables(
        schema: Annotated[str, Field(description="Of this schema only; empty: of all", max_length=63)] = "",
    ) -> Annotated[CallToolResult, QueryResult]:
        """List the tables and views that can be read, with their estimated size and comment."""
        return _result(await _run(database, _TABLES, [schema]))

    @server.tool(annotations=_READS)
    async def describe_table(
        name: Annotated[
            str, Field(description="The table or view, perhaps with its schema: sales.orders", max_length=200)
        ],
    ) -> Annotated[CallToolResult, QueryResult]:
        """Describe the columns of a table or view: types, defaults, keys, what they refer to, comments."""
        rows = await _run(database, _COLUMNS, [name])
        if not rows.rows:
            raise ToolError(f"there is no table {name!r} that can be read; list_tables tells those that there are")
        return _result(rows)

    return server


async def _run(database: ReadOnlyDatabase, sql: str, parameters: list[Parameter]) -> Rows:
    try:
        return await database.query(sql, parameters)
    except QueryRefused as refusal:
        raise ToolError(str(refusal)) from refusal


def _result(rows: Rows) -> CallToolResult:
    notes = [rows.truncated] if rows.truncated else []
    if rows.cut_cells:
        notes.append(f"{rows.cut_cells} long values were cut")
    result = QueryResult(
        columns=[ColumnInfo(name=column.name, type=column.type) for column in rows.columns],
        rows=rows.rows,
        row_count=len(rows.rows),
        truncated=bool(rows.truncated),
        notes=notes,
    )
    shown = text.table([column.name for column in rows.columns], rows.rows)
    told = "\n".join((shown, f"({len(rows.rows)} rows)", *(f"Cut: {note}." for note in notes)))
    return CallToolResult(content=[TextContent(type="text", text=told)], structured_content=result.model_dump())
