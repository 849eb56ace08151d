"""Changes of tasks in the order of their transactions, and how far each target is."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Identity, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from stationmaster_server.db.schema import system_table, tenant_table, timestamp

# Triggers note every change, in its own transaction, whoever makes it; lines are only added, so that nobody waits.
# Numbers are given before the commit: what counts is the transaction, once none before it is under way any more.
_NOTE = """
CREATE FUNCTION note_task_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO task_changes (organization_id, task_id, about) VALUES (
    coalesce(NEW.organization_id, OLD.organization_id), coalesce(NEW.task_id, OLD.task_id), TG_ARGV[0]);
  RETURN NULL;
END
$$
"""
# What targets hold of a task: not when it fires, which changes with each execution.
_OF_TASK = "UPDATE OF kind, display_name, description, payload, labels, state, etag"


def _trigger(table: str, update: str, about: str) -> str:
    return (
        f"CREATE TRIGGER note_change AFTER INSERT OR DELETE OR {update} ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION note_task_change('{about}')"
    )


task_changes = tenant_table(
    "task_changes",
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction", BigInteger, nullable=False, server_default=text("(pg_current_xact_id()::text::bigint)")),
    Column("task_id", Text, nullable=False),
    Column("about", Text, nullable=False),
    timestamp("changed_at", default_now=True),
)
task_changes.info["triggers"] = (
    _NOTE,
    _trigger("tasks", _OF_TASK, "task"),
    _trigger("task_dependencies", "UPDATE", "edge"),
    _trigger("task_vectors", "UPDATE", "vector"),
)
# What comes after a cursor, of all organizations.
Index(None, task_changes.c.about, task_changes.c.transaction, task_changes.c.number)

# How far targets are. Of one in this database it is the cursor itself; of another what it said last. While it is being
# filled from nothing, `filling` is the last task that it has.
sync_cursors = system_table(
    "sync_cursors",
    Column("service_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("about", ARRAY(Text), nullable=False),
    Column("source", Text, nullable=False),
    Column("transaction", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("filling_organization_id", Uuid),
    Column("filling_task_id", Text),
    timestamp("seen_at", default_now=True),
)

# What a target cannot hold as it is, by its etag and in what way (`method`, an encoder): until it changes.
sync_skipped = tenant_table(
    "sync_skipped",
    Column("task_id", Text, primary_key=True),
    Column("service_id", Text, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("why", Text, nullable=False),
    timestamp("skipped_at", default_now=True),
    ForeignKeyConstraint(
        ["organization_id", "task_id"], ["tasks.organization_id", "tasks.task_id"], ondelete="CASCADE"
    ),
)

# Checks of what another process holds than the one that was asked (`asked_by`: which operation), and what it found.
sync_checks = system_table(
    "sync_checks",
    Column("service_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("asked_by", Text, primary_key=True),
    Column("found", JSONB),
    timestamp("asked_at", default_now=True),
)

# How often people had a service fill its targets from nothing, and since when what was made before is not good enough.
# `asked_by`: the operations that asked last, the newest first. Each asks once, however often it is taken up.
sync_generations = system_table(
    "sync_generations",
    Column("service_id", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    timestamp("asked_at", default_now=True),
    Column("asked_by", ARRAY(Text), nullable=False),
)

# Up to where changes were forgotten: a cursor before that is of no use.
sync_forgotten = system_table(
    "sync_forgotten",
    Column("about", Text, primary_key=True),
    Column("transaction", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
)
