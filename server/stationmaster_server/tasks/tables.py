"""The tables of tasks and executions. How an execution stands is in its work item, whose id it has."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Computed, Index, SmallInteger, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, TSVECTOR

from stationmaster_server.db.schema import tenant_table, timestamp

tasks = tenant_table(
    "tasks",
    Column("task_id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # Of the payload, which has masks in their place.
    Column("secrets", JSON, nullable=False, server_default=text("'{}'")),
    Column("payload", JSONB, nullable=False),
    Column("variables", JSONB, nullable=False),
    Column("schedule", JSONB),
    Column("options", JSONB, nullable=False),
    Column("dependency_mode", Text, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'ACTIVE'")),
    Column("state_reason", Text, nullable=False, server_default=text("''")),
    # What the firing of schedules keeps: until when every due time is settled, and the next one, with its jitter.
    timestamp("settled_until", nullable=True),
    timestamp("next_fire_at", nullable=True),
    timestamp("last_fire_at", nullable=True),
    Column("fired", BigInteger, nullable=False, server_default="0"),
    Column("skipped", JSONB, nullable=False, server_default=text("'{}'")),
    Column("etag", Text, nullable=False),
    # The etag with which its text changed last: what its vector is of.
    Column("text_etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
    Column(
        "words",
        TSVECTOR,
        Computed(
            "setweight(to_tsvector('simple', task_id || ' ' || replace(task_id, '-', ' ') || ' ' || display_name), 'A')"
            " || setweight(to_tsvector('simple', description), 'B')"
            " || setweight(jsonb_to_tsvector('simple', labels, '[\"string\"]'), 'C')"
            " || setweight(jsonb_to_tsvector('simple', payload, '[\"string\"]'), 'D')",
            persisted=True,
        ),
    ),
)
# SearchTasks.
Index("tasks_words_idx", tasks.c.words, postgresql_using="gin")
# The firing: what is due, of all organizations.
Index(
    "tasks_due_idx",
    tasks.c.next_fire_at,
    postgresql_where=text("next_fire_at IS NOT NULL AND state = 'ACTIVE'"),
)

task_dependencies = tenant_table(
    "task_dependencies",
    Column("task_id", Text, primary_key=True),
    Column("depends_on", Text, primary_key=True),
    Column("on_failure", Text, nullable=False),
    timestamp("created_at", default_now=True),
)
# What depends on a task.
Index(None, task_dependencies.c.organization_id, task_dependencies.c.depends_on)

# The longest chain that a task depends on, which decides whether an edge can close a cycle. Not with the task: whoever
# changes the graph waits for nobody who holds a task.
task_levels = tenant_table(
    "task_levels",
    Column("task_id", Text, primary_key=True),
    Column("level", SmallInteger, nullable=False),
)

# What is known of an execution when it is submitted, and what is found out on the way. `template`: its payload is to
# be filled in when it begins.
executions = tenant_table(
    "executions",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("task_id", Text),
    Column("task_uid", Uuid),
    Column("kind", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    timestamp("scheduled_for", nullable=True),
    Column("payload", JSON, nullable=False),
    Column("secrets", JSON, nullable=False, server_default=text("'{}'")),
    Column("variables", JSON, nullable=False, server_default=text("'{}'")),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'")),
    Column("report_formats", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("blocked", Boolean, nullable=False, server_default=text("false")),
    Column("template", Boolean, nullable=False, server_default=text("false")),
    # The session that it runs in, whether that outlives it, and the turn that it waits for there. What is made under
    # the id of the conversation is made once, whatever dies; what comes after it was left has another one.
    Column("conversation_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("session_id", Uuid),
    Column("keep_session", Boolean, nullable=False, server_default=text("false")),
    Column("turn_id", Uuid),
    Column("checkpoint", JSON),
    timestamp("created_at", default_now=True),
)
# ListExecutions, newest first: of an organization, of a user.
Index(None, executions.c.organization_id, executions.c.created_at, executions.c.id)
Index(None, executions.c.organization_id, executions.c.user_id, executions.c.created_at, executions.c.id)
# ListExecutions by the name of a task, which more than one may have had.
Index(
    None,
    executions.c.organization_id,
    executions.c.task_id,
    executions.c.created_at,
    executions.c.id,
    postgresql_where=text("task_id IS NOT NULL"),
)
# The newest of a task: how a dependency on it stands, and whether its schedule overlaps.
Index(
    None,
    executions.c.organization_id,
    executions.c.task_uid,
    executions.c.created_at,
    executions.c.id,
    postgresql_where=text("task_uid IS NOT NULL"),
)
# A due time of a task is executed once.
Index(
    "executions_due_key",
    executions.c.organization_id,
    executions.c.task_uid,
    executions.c.scheduled_for,
    unique=True,
    postgresql_where=text("scheduled_for IS NOT NULL"),
)
# Those that wait for tasks that theirs depends on.
Index(None, executions.c.organization_id, executions.c.task_id, postgresql_where=text("blocked"))

# Executions that are gone while something that they left may still be there. `session_id`: whose workspace has files of
# theirs. Whoever deals with one has claimed it.
forgotten_executions = tenant_table(
    "forgotten_executions",
    Column("execution_id", Uuid, primary_key=True),
    Column("session_id", Uuid),
    timestamp("claimed_at", default_now=True),
)
