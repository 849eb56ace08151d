"""Settings of the built-in MCP servers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from stationmaster_server.config.types import Duration, Group, Positive

EVERYBODY = "*"


def _organization(text: str) -> str:
    if text == EVERYBODY:
        return text
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither an organization's UUID nor `*`") from None


Organizations = tuple[Annotated[str, AfterValidator(_organization)], ...]


def serves(organizations: Organizations, organization_id: UUID) -> bool:
    """Whether these settings name the organization."""
    return EVERYBODY in organizations or str(organization_id) in organizations


class McpDatabaseSettings(Group):
    """The built-in MCP server `database`: read-only SQL."""

    url: SecretStr | None = None
    """`postgresql://user:password@host:port/name` of PostgreSQL 14 or newer. Absent: no such server. The login must not
    be able to write; the guide on built-in MCP servers has the statements that make one.
    """
    role: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The role to take (`SET ROLE`) before each query. Absent: none but the login's own."""
    organizations: Organizations = ()
    """Organizations (UUIDs) whose agents and callers may use it; `*` for all of them."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Rows that a query returns at most."""
    query_timeout: Duration = timedelta(seconds=30)
    """How long a query may take."""
    max_connections: Positive = 4
    """Queries that one process runs at once; more wait, at most as long as a query may take."""

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return url

    @model_validator(mode="after")
    def _is_for_somebody(self) -> Self:
        if self.url is not None and not self.organizations:
            raise ValueError("url needs organizations: name those that may use it, or `*` for all")
        return self


class McpMonitoringSettings(Group):
    """The built-in MCP server `monitoring`: this server's health and the organization's numbers."""

    enabled: bool = True


class McpKubernetesSettings(Group):
    """The built-in MCP server `kubernetes_readonly`. It exists when `organizations` names somebody."""

    organizations: Organizations = ()
    """Organizations (UUIDs) whose agents and callers may use it; `*` for all of them."""
    kubeconfig: Path | None = None
    """The kubeconfig file. Absent: the service account of the pod that this server runs in."""
    context: str | None = None
    """The context of the kubeconfig. Absent: its current one."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that may be read; `*` for all of them, and for what belongs to no namespace (nodes)."""
    request_timeout: Duration = timedelta(seconds=20)
    """How long one request to the cluster may take."""
    max_items: Annotated[int, Field(ge=1, le=1_000)] = 200
    """Objects that a list returns at most."""

    @model_validator(mode="after")
    def _reads_something(self) -> Self:
        if self.organizations and not self.namespaces:
            raise ValueError("organizations needs namespaces: name those that may be read, or `*` for all")
        return self
