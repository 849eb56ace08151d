"""stationmaster organizations: the borders that no data crosses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment
from stationmaster_client.names import last

if TYPE_CHECKING:
    from stationmaster.v1 import identity_pb2

app = group("Organizations: the borders that no data crosses.")


@command(app, "create")
async def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    owner: Annotated[str, typer.Option("--owner", help="The name of its first user, an owner.")],
    email: Annotated[str, typer.Option("--email", help="The owner's email address.")] = "",
) -> None:
    """Make an organization with its first user. For operators of the installation."""
    made = await run.client.organizations.create(name, owner_display_name=owner, owner_email=email)
    _describe(run, made)


@command(app, "list")
async def list_organizations(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List organizations: your own, or all for operators."""
    from stationmaster.v1 import identity_pb2

    def row(organization: identity_pb2.Organization) -> tuple[str, ...]:
        return last(organization.name), organization.display_name, age(organization.create_time)

    await show(
        run.out,
        run.client.organizations.list(**query(condition, order_by, limit)),
        identity_pb2.ListOrganizationsResponse(),
        "organizations",
        limit=limit,
        columns=("ORGANIZATION", "NAME", "CREATED"),
        row=row,
        empty="No organizations.",
    )


@command(app, "get")
async def get(
    run: Run,
    organization: Annotated[str, typer.Argument(help="The name or id; without it your own.")] = "organization",
) -> None:
    """Show one organization."""
    if organization == "organization":
        organization = await resolve.owner(run.client, organization)
    _describe(run, await run.client.organizations.get(organization))


def _describe(run: Run, organization: identity_pb2.Organization) -> None:
    if run.out.as_json:
        run.out.json(organization)
        return
    run.out.details(
        [
            ("organization", organization.name),
            ("name", organization.display_name),
            ("created", moment(organization.create_time)),
        ]
    )
