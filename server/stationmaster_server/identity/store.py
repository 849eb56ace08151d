"""The queries of organizations and users. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists
from stationmaster_server.identity.model import Organization, Role, User, Webhook
from stationmaster_server.identity.policy_store import policies_from_json, policies_to_json

ORGANIZATION = (
    "o.organization_id, o.display_name, o.created_at, o.tool_policies, o.webhook_url, o.revision, o.updated_at"
)
USER = (
    "u.id, u.organization_id, u.display_name, u.email, u.role, u.external_subject, u.disabled_at, u.revision,"
    " u.created_at, u.updated_at, u.tool_policies"
)
_BOOTSTRAP_LOCK = 0x424F4F54  # any number of our own
_CONFLICTS = {"users_email_key": "email", "users_external_subject_key": "external_subject"}


async def insert_organization(tx: Transaction, organization_id: UUID, display_name: str) -> Organization:
    """A new organization."""
    sql = f"INSERT INTO organizations AS o (organization_id, display_name) VALUES ($1, $2) RETURNING {ORGANIZATION}"
    return organization_of(await tx.fetchrow(sql, organization_id, display_name))


async def get_organization(tx: Transaction, organization_id: UUID) -> Organization | None:
    """One organization."""
    row = await tx.fetchrow(f"SELECT {ORGANIZATION} FROM organizations o WHERE organization_id = $1", organization_id)
    return None if row is None else organization_of(row)


async def update_organization(
    tx: Transaction, organization: Organization, webhook: Webhook | None = None
) -> Organization | None:
    """Write an organization's fields, with a new revision; None when its webhook would have no secret."""
    row = await tx.fetchrow(
        f"""
        UPDATE organizations o
        SET display_name = $2, tool_policies = $3,
            webhook_url = CASE WHEN $4 THEN nullif($5, '') ELSE webhook_url END,
            webhook_secret = CASE WHEN NOT $4 THEN webhook_secret
                                  WHEN $5 = '' THEN NULL ELSE coalesce($6, webhook_secret) END,
            revision = revision + 1, updated_at = now()
        WHERE organization_id = $1 AND (NOT $4 OR $5 = '' OR coalesce($6, webhook_secret) IS NOT NULL)
        RETURNING {ORGANIZATION}
        """,
        organization.id,
        organization.display_name,
        policies_to_json(organization.tool_policies),
        webhook is not None,
        "" if webhook is None else webhook.url,
        None if webhook is None else webhook.secret,
    )
    return None if row is None else organization_of(row)


async def webhook_of(tx: Transaction, organization_id: UUID) -> Webhook | None:
    """Who an organization wants told, with the secret."""
    row = await tx.fetchrow(
        "SELECT webhook_url, webhook_secret FROM organizations WHERE organization_id = $1", organization_id
    )
    return None if row is None or row["webhook_url"] is None else Webhook(row["webhook_url"], row["webhook_secret"])


async def any_organization(tx: Transaction) -> bool:
    """Whether the installation has one."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM organizations)"))


async def lock_bootstrap(tx: Transaction) -> None:
    """Let one server at a time look whether the installation is new (a system transaction)."""
    await tx.execute("SELECT pg_advisory_xact_lock($1)", _BOOTSTRAP_LOCK)


async def shared_secret(tx: Transaction, purpose: str, fresh: bytes) -> bytes:
    """The installation's secret for a purpose, which is `fresh` if there is none yet (a system transaction)."""
    sql = """
    WITH made AS (
        INSERT INTO installation_secrets (purpose, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING secret
    )
    SELECT secret FROM made UNION ALL SELECT secret FROM installation_secrets WHERE purpose = $1 LIMIT 1
    """
    secret: bytes | None = None
    while secret is None:  # nothing is seen when another server makes it just now
        secret = await tx.fetchval(sql, purpose, fresh)
    return secret


async def lock_organization(tx: Transaction, organization_id: UUID) -> bool:
    """Let one transaction at a time change who owns an organization and how many users it has; False: none such."""
    sql = "SELECT TRUE FROM organizations WHERE organization_id = $1 FOR NO KEY UPDATE"
    return bool(await tx.fetchval(sql, organization_id))


async def insert_user(tx: Transaction, user: User) -> User:
    """A new user; its revision and times are the database's. AlreadyExists when its email or subject is taken."""
    sql = f"""
    INSERT INTO users AS u (organization_id, id, display_name, email, role, external_subject)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING {USER}
    """
    try:
        row = await tx.fetchrow(
            sql, user.organization_id, user.id, user.display_name, user.email, user.role.value, user.external_subject
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(error, user) from error
    return user_of(row)


async def get_user(tx: Transaction, organization_id: UUID, user_id: UUID) -> User | None:
    """One user."""
    row = await tx.fetchrow(
        f"SELECT {USER} FROM users u WHERE organization_id = $1 AND id = $2", organization_id, user_id
    )
    return None if row is None else user_of(row)


async def lock_user(tx: Transaction, organization_id: UUID, user_id: UUID) -> User | None:
    """One user, that nobody else changes until this transaction ends."""
    sql = f"SELECT {USER} FROM users u WHERE organization_id = $1 AND id = $2 FOR NO KEY UPDATE"
    row = await tx.fetchrow(sql, organization_id, user_id)
    return None if row is None else user_of(row)


async def update_user(tx: Transaction, user: User) -> User:
    """Write a user's fields, with a new revision. AlreadyExists when its email or subject is taken."""
    sql = f"""
    UPDATE users u
    SET display_name = $3, email = $4, role = $5, external_subject = $6, disabled_at = $7, tool_policies = $8,
        revision = u.revision + 1, updated_at = now()
    WHERE organization_id = $1 AND id = $2 RETURNING {USER}
    """
    fields = (user.display_name, user.email, user.role.value, user.external_subject, user.disabled_at)
    policies = policies_to_json(user.tool_policies)
    try:
        row = await tx.fetchrow(sql, user.organization_id, user.id, *fields, policies)
    except asyncpg.UniqueViolationError as error:
        raise _taken(error, user) from error
    return user_of(row)


async def count_users(tx: Transaction, organization_id: UUID) -> int:
    """Users that are not disabled."""
    sql = "SELECT count(*) FROM users WHERE organization_id = $1 AND disabled_at IS NULL"
    return int(await tx.fetchval(sql, organization_id))


async def count_owners(tx: Transaction, organization_id: UUID) -> int:
    """Owners that are not disabled."""
    sql = "SELECT count(*) FROM users WHERE organization_id = $1 AND role = $2 AND disabled_at IS NULL"
    return int(await tx.fetchval(sql, organization_id, Role.OWNER.value))


async def organization_of_user(tx: Transaction, user_id: UUID) -> UUID | None:
    """The organization of a user, for operators (a system transaction)."""
    organization_id: UUID | None = await tx.fetchval("SELECT organization_id FROM users WHERE id = $1", user_id)
    return organization_id


async def find_user(tx: Transaction, user_id: UUID) -> User | None:
    """A user of any organization (a system transaction)."""
    row = await tx.fetchrow(f"SELECT {USER} FROM users u WHERE id = $1", user_id)
    return None if row is None else user_of(row)


async def oldest_owner(tx: Transaction, organization_id: UUID | None = None) -> User | None:
    """The first owner, of that organization or of all, that is not disabled (a system transaction)."""
    sql = f"""
    SELECT {USER} FROM users u
    WHERE role = $1 AND disabled_at IS NULL AND ($2::uuid IS NULL OR organization_id = $2)
    ORDER BY created_at, id LIMIT 1
    """
    row = await tx.fetchrow(sql, Role.OWNER.value, organization_id)
    return None if row is None else user_of(row)


async def list_organizations(tx: Transaction, organization_id: UUID | None, clause: Clause) -> Page[Organization]:
    """A page of organizations: that one, or all (a system transaction); the clause's placeholders start at 2."""
    sql = f"""
    SELECT {ORGANIZATION}, {clause.cursor_sql} FROM organizations o
    WHERE ($1::uuid IS NULL OR o.organization_id = $1) AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), organization_of)


async def list_users(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[User]:
    """A page of an organization's users; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {USER}, {clause.cursor_sql} FROM users u
    WHERE u.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), user_of)


def organization_of(row: Any) -> Organization:
    """An organization of a row with the columns ORGANIZATION."""
    return Organization(
        id=row["organization_id"],
        display_name=row["display_name"],
        created_at=row["created_at"],
        tool_policies=policies_from_json(row["tool_policies"]),
        webhook_url=row["webhook_url"] or "",
        revision=row["revision"],
        updated_at=row["updated_at"],
    )


def user_of(row: Any) -> User:
    """A user of a row with the columns USER."""
    return User(
        id=row["id"],
        organization_id=row["organization_id"],
        display_name=row["display_name"],
        email=row["email"],
        role=Role(row["role"]),
        external_subject=row["external_subject"],
        disabled_at=row["disabled_at"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        tool_policies=policies_from_json(row["tool_policies"]),
    )


def _taken(error: asyncpg.UniqueViolationError, user: User) -> Exception:
    field = _CONFLICTS.get(error.constraint_name or "")
    if field is None:
        return error
    return AlreadyExists("User", f"{field}={getattr(user, field)}")
