"""stationmaster users: people and programs of the organization."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment, plain

if TYPE_CHECKING:
    from stationmaster.v1 import identity_pb2

app = group("People and programs of the organization.")


class Role(StrEnum):
    """What a user may do, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    SERVICE = "service"


User = Annotated[str, typer.Argument(help="Name, end of the id, email address, or me.", metavar="USER")]
Email = Annotated[str, typer.Option("--email", help="The email address.")]
Subject = Annotated[
    str,
    typer.Option("--subject", help="How a token or certificate names the user."),
]


@command(app, "create")
async def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    role: Annotated[Role, typer.Option("--role", "-r", help="What the user may do.")] = Role.MEMBER,
    email: Email = "",
    subject: Subject = "",
    organization: Annotated[str, typer.Option("--organization", help="Operators only: another organization.")] = "",
) -> None:
    """Make a user."""
    from stationmaster.v1 import identity_pb2

    made = await run.client.users.create(
        name,
        identity_pb2.Role.Value(f"ROLE_{role.name}"),
        email=email,
        external_subject=subject,
        organization=organization,
    )
    describe(run, made)


@command(app, "list")
async def list_users(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List users."""
    from stationmaster.v1 import identity_pb2

    def row(user: identity_pb2.User) -> tuple[str, ...]:
        role = plain(identity_pb2.Role.Name(user.role), "ROLE")
        state = "disabled" if user.disabled else ""
        return resolve.short(user.name), user.display_name, user.email, role, state, age(user.create_time)

    await show(
        run.out,
        run.client.users.list(**query(condition, order_by, limit)),
        identity_pb2.ListUsersResponse(),
        "users",
        limit=limit,
        columns=("USER", "NAME", "EMAIL", "ROLE", "STATE", "CREATED"),
        row=row,
        empty="No users.",
    )


@command(app, "show", also="get")
async def get(run: Run, user: User) -> None:
    """Show one user."""
    describe(run, await run.client.users.get(await resolve.user(run.client, user)))


@command(app, "update")
async def update(
    run: Run,
    user: User,
    name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    role: Annotated[Role | None, typer.Option("--role", "-r", help="What the user may do.")] = None,
    email: Email = "",
    subject: Subject = "",
) -> None:
    """Change a user."""
    from stationmaster.v1 import identity_pb2

    current = await run.client.users.get(await resolve.user(run.client, user))
    wanted = {"display_name": name, "email": email, "external_subject": subject}
    paths = [path for path, value in wanted.items() if value]
    for path in paths:
        setattr(current, path, wanted[path])
    if role is not None:
        current.role = identity_pb2.Role.Value(f"ROLE_{role.name}")
        paths.append("role")
    if not paths:
        raise CommandError("nothing to change: give --name, --role, --email or --subject")
    describe(run, await run.client.users.update(current, paths))


@command(app, "disable")
async def disable(run: Run, user: User) -> None:
    """Disable a user: its keys are refused from then on."""
    describe(run, await run.client.users.disable(await resolve.user(run.client, user)))


def describe(run: Run, user: identity_pb2.User) -> None:
    """Print one user."""
    from stationmaster.v1 import identity_pb2

    if run.out.as_json:
        run.out.json(user)
        return
    run.out.details(
        [
            ("user", user.name),
            ("name", user.display_name),
            ("email", user.email),
            ("role", plain(identity_pb2.Role.Name(user.role), "ROLE")),
            ("state", "disabled" if user.disabled else ""),
            ("subject", user.external_subject),
            ("organization", user.organization),
            ("created", moment(user.create_time)),
        ]
    )
