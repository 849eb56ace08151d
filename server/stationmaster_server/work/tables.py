"""The tables of the work engine."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, Interval, SmallInteger, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from stationmaster_server.db.schema import tenant_table, timestamp

# One row for each item of work, from its submission to its end.
# `lease_token` is that of the newest claim, also after its end: a token is good only while the state is RUNNING.
# `errors` has one object for each attempt that failed; of many, of the first and the newest.
# `retry` NULL: the default policy.
work_items = tenant_table(
    "work_items",
    Column("item_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("priority", SmallInteger, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("payload", JSON, nullable=False),
    Column("concurrency_key", Text),
    Column("max_running", Integer, nullable=False, server_default="1"),
    # Of one that came before its time: the strategy by which its key lets it in when that has come.
    Column("deferred", Text),
    Column("idempotency_key", Text),
    timestamp("idempotency_expires_at", nullable=True),
    Column("rate_key", Text),
    Column("rate_spacing", Interval),
    timestamp("rate_slot", nullable=True),
    Column("retry", JSON),
    Column("attempt", Integer, nullable=False, server_default="0"),
    timestamp("run_at", default_now=True),
    timestamp("start_deadline", nullable=True),
    timestamp("close_deadline", nullable=True),
    Column("close_timeout", Interval),
    Column("attempt_timeout", Interval),
    Column("heartbeat_timeout", Interval),
    Column("lease_token", Uuid),
    timestamp("lease_expires_at", nullable=True),
    timestamp("attempt_deadline", nullable=True),
    timestamp("heartbeat_deadline", nullable=True),
    Column("worker", Text),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("resume_requested", Boolean, nullable=False, server_default=text("false")),
    # Whether somebody wants to deal with the item's end, and whether that is done.
    Column("follow_up", Boolean, nullable=False, server_default=text("false")),
    Column("followed_up", Boolean, nullable=False, server_default=text("false")),
    Column("progress", JSON),
    Column("result", JSON),
    Column("errors", JSONB, nullable=False, server_default=text("'[]'")),
    timestamp("created_at", default_now=True),
    timestamp("started_at", nullable=True),
    timestamp("finished_at", nullable=True),
)

# The claim: the oldest of a lane. The reaper: whether a lane has anything. The bound: what an organization queues.
Index(
    "work_items_lane_idx",
    work_items.c.organization_id,
    work_items.c.user_id,
    work_items.c.priority,
    work_items.c.state,
    work_items.c.run_at,
    postgresql_where=text("state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')"),
)
# The reaper: expired leases. Not on lease_expires_at, so that a heartbeat touches no index.
Index("work_items_running_idx", work_items.c.item_id, postgresql_where=text("state = 'RUNNING'"))
# The reaper: items that nobody runs and whose time is up.
Index(
    "work_items_deadline_idx",
    func.least(work_items.c.start_deadline, work_items.c.close_deadline),
    postgresql_where=text(
        "state IN ('WAITING', 'QUEUED', 'SUSPENDED') AND (start_deadline IS NOT NULL OR close_deadline IS NOT NULL)"
    ),
)
# What has not ended of a subject: a schedule asks at each due time, however many ended before.
Index(
    "work_items_subject_idx",
    work_items.c.organization_id,
    work_items.c.subject_id,
    postgresql_where=text("follow_up AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')"),
)
# Admission: the live items of a concurrency key; who is next; the highest limit among those that wait.
Index(
    "work_items_concurrency_idx",
    work_items.c.organization_id,
    work_items.c.concurrency_key,
    work_items.c.state,
    postgresql_where=text("concurrency_key IS NOT NULL AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')"),
)
Index(
    "work_items_waiting_idx",
    work_items.c.organization_id,
    work_items.c.concurrency_key,
    work_items.c.priority,
    work_items.c.run_at,
    work_items.c.item_id,
    postgresql_where=text("state = 'WAITING' AND deferred IS NULL AND NOT paused"),
)
Index(
    "work_items_limit_idx",
    work_items.c.organization_id,
    work_items.c.concurrency_key,
    work_items.c.max_running,
    postgresql_where=text("state = 'WAITING' AND deferred IS NULL AND NOT paused"),
)
# The reaper: items of concurrency keys whose time has come.
Index(
    "work_items_deferred_idx",
    work_items.c.run_at,
    postgresql_where=text("state = 'WAITING' AND deferred IS NOT NULL AND NOT paused"),
)
# Submission: one item for each idempotency key (an expired one is cleared first).
Index(
    "work_items_idempotency_key",
    work_items.c.organization_id,
    work_items.c.idempotency_key,
    unique=True,
    postgresql_where=text("idempotency_key IS NOT NULL"),
)
# Those whose end is still to be dealt with.
Index(
    "work_items_follow_up_idx",
    work_items.c.kind,
    work_items.c.finished_at,
    postgresql_where=text("follow_up AND NOT followed_up AND state IN ('SUCCEEDED', 'CANCELLED', 'DEAD')"),
)
# The list of dead items of an organization, newest first.
Index(
    "work_items_dead_idx",
    work_items.c.organization_id,
    work_items.c.finished_at,
    work_items.c.item_id,
    postgresql_where=text("state = 'DEAD'"),
)

# What a follow-up was asked for and ended well, or was cancelled: the newest of an organization are counted.
Index(
    "work_items_ended_idx",
    work_items.c.organization_id,
    work_items.c.finished_at,
    postgresql_where=text("follow_up AND state IN ('SUCCEEDED', 'CANCELLED')"),
)

# A lane is what one user queues at one priority. The claim goes through all lanes; `served_at` is when one was last
# claimed from. A lane without items is deleted ten minutes after `used_at`, which submissions renew every five.
work_lanes = tenant_table(
    "work_lanes",
    Column("user_id", Uuid, primary_key=True),
    Column("priority", SmallInteger, primary_key=True, autoincrement=False),
    timestamp("served_at", nullable=True),
    timestamp("used_at", default_now=True),
)

# A row to lock: whoever lets an item with a concurrency key in or out holds it, so that counting is exact.
work_keys = tenant_table(
    "work_keys",
    Column("concurrency_key", Text, primary_key=True),
    timestamp("used_at", default_now=True),
)

# When the next item of a rate key may start.
work_rates = tenant_table(
    "work_rates",
    Column("rate_key", Text, primary_key=True),
    timestamp("next_at"),
)
