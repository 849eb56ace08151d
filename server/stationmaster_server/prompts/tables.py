"""The tables of prompts, their versions, labels and customizations."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Index, Integer, Text, Uuid, text
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
    # Beside `tags`, an object of them, because lists filter by keys.
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
