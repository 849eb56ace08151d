"""The queries of prompts, versions and labels. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists
from stationmaster_server.prompts.model import Prompt, Version, prompt_name
from stationmaster_server.prompts.prompt_json import (
    rules_from_json,
    rules_to_json,
    variables_from_json,
    variables_to_json,
)
from stationmaster_server.prompts.reference import parse

CHANNEL = "stationmaster_prompts"
"""Prompts that changed: the organization's id, a slash, and the prompt's."""

_HEAD = (
    "p.prompt_id, p.uid, p.display_name, p.description, p.tags, p.protected_labels, p.default_label, p.attributes,"
    " p.rules, p.latest_version, p.labels, p.etag, p.created_at, p.updated_at"
)
_VERSION = (
    "v.version, v.template, v.variables, v.includes, v.message, v.author_id, v.created_at AS made_at,"
    " ARRAY(SELECT l.key FROM jsonb_each(p.labels) l WHERE l.value = to_jsonb(v.version) ORDER BY l.key)"
    " AS version_labels"
)
_BOTH = f"{_HEAD}, {_VERSION}"
_JOIN = (
    "JOIN prompt_versions v ON v.organization_id = p.organization_id AND v.prompt_id = p.prompt_id"
    " AND v.version = p.latest_version"
)
_ITS_PROMPT = "JOIN prompts p ON p.organization_id = v.organization_id AND p.prompt_id = v.prompt_id"

LISTING = Listing(
    {
        "prompt_id": Field("p.prompt_id", str),
        "display_name": Field("p.display_name", str),
        "latest_version": Field("p.latest_version", int),
        "tags": Field("p.tags", dict),
        "labels": Field("p.labels", dict),
        "create_time": Field("p.created_at", datetime),
        "update_time": Field("p.updated_at", datetime),
    },
    key="p.prompt_id",
    key_type=str,
    default_order="create_time desc",
    order_fields=["prompt_id", "display_name", "latest_version", "create_time", "update_time"],
)
VERSIONS = Listing(
    {
        "version": Field("v.version", int),
        "author": Field("'users/' || v.author_id", str),
        "create_time": Field("v.created_at", datetime),
    },
    key="v.version",
    key_type=int,
    default_order="version desc",
)


async def insert(tx: Transaction, organization_id: UUID, prompt: Prompt) -> None:
    """A new prompt and its first version. AlreadyExists when the id is taken."""
    sql = """
    INSERT INTO prompts (organization_id, prompt_id, uid, display_name, description, tags, protected_labels,
                         default_label, attributes, rules, labels, etag, latest_version)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1)
    """
    try:
        await tx.execute(sql, organization_id, prompt.prompt_id, prompt.uid, *_changeable(prompt))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "prompts_pkey":
            raise
        raise AlreadyExists("Prompt", prompt_name(prompt.prompt_id)) from None
    await insert_version(tx, organization_id, prompt.shown)


async def insert_version(tx: Transaction, organization_id: UUID, version: Version) -> None:
    """One more version; the prompt's row is locked, or new."""
    sql = """
    INSERT INTO prompt_versions (organization_id, prompt_id, version, template, variables, includes, included_ids,
                                 message, author_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    """
    ids = sorted({found.prompt_id for text in version.includes if (found := parse(text))})
    await tx.execute(
        sql,
        organization_id,
        version.prompt_id,
        version.version,
        version.template,
        variables_to_json(version.variables),
        list(version.includes),
        ids,
        version.message,
        version.author_id,
    )


async def get(tx: Transaction, organization_id: UUID, prompt_id: str) -> Prompt | None:
    """A prompt with its newest version."""
    sql = f"SELECT {_BOTH} FROM prompts p {_JOIN} WHERE p.organization_id = $1 AND p.prompt_id = $2"
    row = await tx.fetchrow(sql, organization_id, prompt_id)
    return None if row is None else _prompt(row)


async def lock(tx: Transaction, organization_id: UUID, prompt_id: str) -> Prompt | None:
    """A prompt with its newest version, that nobody else changes until this transaction ends."""
    # The row first: a join would show the version that was the newest before it was waited for.
    locked = "SELECT true FROM prompts WHERE organization_id = $1 AND prompt_id = $2 FOR NO KEY UPDATE"
    if not await tx.fetchval(locked, organization_id, prompt_id):
        return None
    return await get(tx, organization_id, prompt_id)


async def update(tx: Transaction, organization_id: UUID, prompt: Prompt) -> None:
    """Write all that can change of a prompt."""
    sql = """
    UPDATE prompts SET display_name = $3, description = $4, tags = $5, protected_labels = $6, default_label = $7,
           attributes = $8, rules = $9, labels = $10, etag = $11, latest_version = $12, updated_at = now()
    WHERE organization_id = $1 AND prompt_id = $2
    """
    await tx.execute(sql, organization_id, prompt.prompt_id, *_changeable(prompt), prompt.latest_version)


async def delete(tx: Transaction, organization_id: UUID, prompt_id: str) -> None:
    """Remove a prompt and all that belongs to it."""
    await tx.execute("DELETE FROM prompts WHERE organization_id = $1 AND prompt_id = $2", organization_id, prompt_id)


async def version(tx: Transaction, organization_id: UUID, prompt_id: str, number: int) -> Version | None:
    """One version."""
    sql = f"""
    SELECT v.prompt_id, {_VERSION} FROM prompt_versions v {_ITS_PROMPT}
    WHERE v.organization_id = $1 AND v.prompt_id = $2 AND v.version = $3
    """
    row = await tx.fetchrow(sql, organization_id, prompt_id, number)
    return None if row is None else version_of(row)


async def list_prompts(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[Prompt]:
    """A page of prompts; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {_BOTH}, {clause.cursor_sql} FROM prompts p {_JOIN}
    WHERE p.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), _prompt)


async def list_versions(tx: Transaction, organization_id: UUID, prompt_id: str, clause: Clause) -> Page[Version]:
    """A page of a prompt's versions; the clause's placeholders start at 3."""
    sql = f"""
    SELECT v.prompt_id, {_VERSION}, {clause.cursor_sql} FROM prompt_versions v {_ITS_PROMPT}
    WHERE v.organization_id = $1 AND v.prompt_id = $2 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, prompt_id, *clause.args), version_of)


async def lock_includes(tx: Transaction, organization_id: UUID) -> None:
    """Nobody else changes what prompts of the organization include until this transaction ends."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('prompt_includes' || $1::uuid::text, 0))", organization_id
    )


async def etags(tx: Transaction, organization_id: UUID, prompt_ids: Iterable[str]) -> dict[str, str]:
    """The etags of those of the prompts that are there."""
    sql = "SELECT prompt_id, etag FROM prompts WHERE organization_id = $1 AND prompt_id = ANY($2)"
    return {row["prompt_id"]: row["etag"] for row in await tx.fetch(sql, organization_id, list(prompt_ids))}


async def including(tx: Transaction, organization_id: UUID, prompt_id: str, most: int) -> Sequence[str]:
    """Other prompts of which a version that is the newest, or that a label points to, includes this one."""
    sql = """
    SELECT DISTINCT v.prompt_id FROM prompt_versions v
    JOIN prompts p ON p.organization_id = v.organization_id AND p.prompt_id = v.prompt_id
    WHERE v.organization_id = $1 AND v.included_ids @> ARRAY[$2::text] AND v.prompt_id <> $2
      AND (v.version = p.latest_version
           OR EXISTS (SELECT FROM jsonb_each(p.labels) l WHERE l.value = to_jsonb(v.version)))
    ORDER BY v.prompt_id LIMIT $3
    """
    return [row["prompt_id"] for row in await tx.fetch(sql, organization_id, prompt_id, most)]


async def notify(tx: Transaction, organization_id: UUID, prompt_id: str) -> None:
    """Tell every server, with the commit. No call of the hot paths does this."""
    await tx.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{organization_id}/{prompt_id}")


def version_of(row: asyncpg.Record) -> Version:
    """A version from its columns."""
    return Version(
        row["prompt_id"],
        row["version"],
        row["template"],
        variables_from_json(row["variables"]),
        tuple(row["includes"]),
        row["message"],
        row["author_id"],
        row["made_at"],
        tuple(row["version_labels"]),
    )


def _changeable(prompt: Prompt) -> tuple[Any, ...]:
    return (
        prompt.display_name,
        prompt.description,
        list(prompt.tags),
        list(prompt.protected_labels),
        prompt.default_label,
        variables_to_json(prompt.attributes),
        rules_to_json(prompt.rules),
        dict(prompt.labels),
        prompt.etag,
    )


def _prompt(row: asyncpg.Record) -> Prompt:
    return Prompt(
        prompt_id=row["prompt_id"],
        uid=row["uid"],
        display_name=row["display_name"],
        description=row["description"],
        tags=tuple(row["tags"]),
        protected_labels=tuple(row["protected_labels"]),
        default_label=row["default_label"],
        attributes=variables_from_json(row["attributes"]),
        rules=rules_from_json(row["rules"]),
        latest_version=row["latest_version"],
        labels=row["labels"],
        etag=row["etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        shown=version_of(row),
    )
