"""stationmaster organizations: the borders that no data crosses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment
from stationmaster_client.cli.terminal import Left, ask_secret
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
    run.out.note(f"Its owner's key, at the server: stationmaster-server keys create --organization {made.name}")


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


@command(app, "show", also="get")
async def get(
    run: Run,
    organization: Annotated[str, typer.Argument(help="The name or id; without it your own.")] = "organization",
) -> None:
    """Show one organization."""
    if organization == "organization":
        organization = await resolve.owner(run.client, organization)
    _describe(run, await run.client.organizations.get(organization))


@command(app, "webhook")
async def webhook(
    run: Run,
    url: Annotated[str, typer.Argument(help="Where to POST; none: tell nobody any more.", metavar="URL|none")],
    secret_file: Annotated[
        str, typer.Option("--secret-file", help="A file with the secret; - is standard input.", metavar="FILE")
    ] = "",
    keep_secret: Annotated[bool, typer.Option("--keep-secret", help="Change the URL and keep the secret.")] = False,
) -> None:
    """Have a receiver told of every permission that is asked for in your organization.

    The secret (whsec_ and the base64 of 24 to 64 random bytes) is asked for, or read from --secret-file.
    """
    from stationmaster.v1 import identity_pb2

    current = await run.client.organizations.get(await resolve.owner(run.client, "organization"))
    wanted = identity_pb2.Organization(name=current.name, etag=current.etag)
    if url != "none":
        wanted.permission_webhook.url = url
        if not keep_secret:
            wanted.permission_webhook.secret = _secret(run, secret_file)
    elif secret_file or keep_secret:
        raise CommandError("none goes without --secret-file and --keep-secret")
    _describe(run, await run.client.organizations.update(wanted, ["permission_webhook"]))


def _secret(run: Run, file: str) -> str:
    if file == "-":
        return sys.stdin.readline().strip()
    if file:
        try:
            return Path(file).read_text().strip()
        except (OSError, ValueError) as error:
            raise CommandError(f"the secret cannot be read from {file}: {type(error).__name__}") from None
    if not run.out.interactive:
        raise CommandError(
            "there is no terminal to ask for the secret at: use --secret-file FILE, or - for standard input"
        )
    try:
        return ask_secret("secret (whsec_…, not shown): ").strip()
    except Left:
        raise KeyboardInterrupt from None


def _describe(run: Run, organization: identity_pb2.Organization) -> None:
    if run.out.as_json:
        run.out.json(organization)
        return
    run.out.details(
        [
            ("organization", organization.name),
            ("name", organization.display_name),
            ("webhook", organization.permission_webhook.url),
            ("tool rules", str(len(organization.tool_policies) or "")),
            ("created", moment(organization.create_time)),
        ]
    )
