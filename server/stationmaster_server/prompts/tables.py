"""The tables of prompts, their versions, customizations and experiments, and of what came of them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from stationmaster_server.db.schema import tenant_table, timestamp


def of_prompt() -> ForeignKeyConstraint:
    """What belongs to a prompt goes with it."""
    columns = ["organization_id", "prompt_id"]
    return ForeignKeyConstraint(columns, [f"prompts.{column}" for column in columns], ondelete="CASCADE")


prompts = tenant_table(
    "prompts",
    Column("prompt_id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("protected_labels", ARRAY(Text), nullable=False),
    Column("default_label", Text, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("latest_version", Integer, nullable=False),
    # Version by label. In one row with the prompt: a change of labels and a read of them are one row each.
    Column("labels", JSONB, nullable=False, server_default=text("'{}'")),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)
# `WHERE organization_id = $1 ORDER BY created_at DESC, prompt_id DESC`: the default order of ListPrompts.
Index("prompts_by_creation", prompts.c.organization_id, prompts.c.created_at, prompts.c.prompt_id)

prompt_versions = tenant_table(
    "prompt_versions",
    Column("prompt_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("template", Text, nullable=False),
    Column("variables", JSON, nullable=False),
    # As the template has them: `id`, `id@label`, `id@version`.
    Column("includes", ARRAY(Text), nullable=False),
    # The ids alone.
    Column("included_ids", ARRAY(Text), nullable=False),
    Column("message", Text, nullable=False),
    Column("author_id", Uuid, nullable=False),
    timestamp("created_at", default_now=True),
    of_prompt(),
)
# DeletePrompt: who includes it.
Index("prompt_versions_included", prompt_versions.c.included_ids, postgresql_using="gin")

# A user's own: other users of the organization do not see the rows, whatever a query asks for.
prompt_customizations = tenant_table(
    "prompt_customizations",
    Column("id", Uuid, primary_key=True),
    Column("prompt_id", Text, nullable=False),
    Column("user_id", Uuid, nullable=False),
    # Empty: with every agent.
    Column("agent_id", Text, nullable=False),
    Column("template", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("variables", JSON, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
    of_prompt(),
    of_user="user_id",
)
# One for each agent; and those of a prompt and user, which every first render of theirs reads.
Index(
    "prompt_customizations_key",
    prompt_customizations.c.organization_id,
    prompt_customizations.c.prompt_id,
    prompt_customizations.c.user_id,
    prompt_customizations.c.agent_id,
    unique=True,
)

prompt_experiments = tenant_table(
    "prompt_experiments",
    Column("id", Uuid, primary_key=True),
    Column("prompt_id", Text, nullable=False),
    Column("prompt_uid", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("variants", JSON, nullable=False),
    # Ten thousandths of the units.
    Column("traffic", Integer, nullable=False),
    Column("exclusion_group", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("alpha", Float(53), nullable=False),
    Column("minimum", Integer, nullable=False),
    Column("state", Text, nullable=False),
    # Ranges of ten thousandths, while it runs.
    Column("slots", JSON, nullable=False),
    Column("winner", Text, nullable=False),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("started_at", nullable=True),
    timestamp("ended_at", nullable=True),
    of_prompt(),
)
# Those of a prompt that run, which every read of it for renders wants; and those of a group.
Index(
    "prompt_experiments_running",
    prompt_experiments.c.organization_id,
    prompt_experiments.c.prompt_id,
    postgresql_where=text("state = 'RUNNING'"),
)
Index(
    "prompt_experiments_by_creation",
    prompt_experiments.c.organization_id,
    prompt_experiments.c.created_at,
    prompt_experiments.c.id,
)

# Which variant a unit was given first. Nothing refers to prompts or experiments from here on: what is written in the
# background may come after they are gone, and a chore removes it.
prompt_exposures = tenant_table(
    "prompt_exposures",
    Column("experiment_id", Uuid, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("variant", Text, nullable=False),
    timestamp("created_at", default_now=True),
)

# What came of renders. `experiment_id` only where it counts for one.
prompt_outcomes = tenant_table(
    "prompt_outcomes",
    Column("id", Uuid, primary_key=True),
    Column("prompt_uid", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("outcome", Float(53), nullable=False),
    Column("experiment_id", Uuid),
    Column("variant", Text, nullable=False),
    Column("unit", Text, nullable=False),
    timestamp("created_at", default_now=True),
)
# The first outcome of a unit counts; and the results of an experiment.
Index(
    "prompt_outcomes_once",
    prompt_outcomes.c.organization_id,
    prompt_outcomes.c.experiment_id,
    prompt_outcomes.c.unit,
    prompt_outcomes.c.metric,
    unique=True,
    postgresql_where=text("experiment_id IS NOT NULL"),
)
# Analytics over a span; and what is old, of one organization after the other.
Index(None, prompt_outcomes.c.organization_id, prompt_outcomes.c.prompt_uid, prompt_outcomes.c.created_at)
Index(None, prompt_outcomes.c.created_at)

# Renders and model calls, by the hour.
prompt_figures = tenant_table(
    "prompt_figures",
    Column("prompt_uid", Uuid, primary_key=True),
    timestamp("hour", primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("renders", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    # Counts by bucket of latency.
    Column("latencies", ARRAY(BigInteger), nullable=False),
    Column("model_calls", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
)
# What is old.
Index(None, prompt_figures.c.hour)
