"""The rules about tools of users and organizations, as columns hold them."""

from __future__ import annotations

from typing import Any

from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import Effect, ToolPolicy

# Of whoever owns a session or makes a call: its own rules and its organization's. Placeholders: organization, user.
_ABOVE = """
    coalesce((SELECT tool_policies FROM users WHERE organization_id = {organization} AND id = {user}), '[]')
    || coalesce((SELECT tool_policies FROM organizations WHERE organization_id = {organization}), '[]')
"""


def above_sql(organization: str, user: str) -> str:
    """SQL of the rules of a user and its organization, for a statement that is made anyway."""
    return _ABOVE.format(organization=organization, user=user)


async def above(tx: Transaction, tenant: Tenant) -> tuple[ToolPolicy, ...]:
    """The rules of a user and its organization."""
    sql = f"SELECT {above_sql('$1', '$2')}"
    return policies_from_json(await tx.fetchval(sql, tenant.organization_id, tenant.user_id))


def policies_to_json(policies: tuple[ToolPolicy, ...]) -> list[dict[str, str]]:
    """Rules about tools as a JSON array."""
    return [{"pattern": policy.pattern, "effect": policy.effect.value} for policy in policies]


def policies_from_json(document: Any) -> tuple[ToolPolicy, ...]:
    """The rules that `policies_to_json` made this of."""
    return tuple(ToolPolicy(entry["pattern"], Effect(entry["effect"])) for entry in document)
