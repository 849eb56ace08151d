"""stationmaster credentials: secrets and settings by name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.credential_values import Expires, Setting, ValueFile, content
from stationmaster_client.cli.credentials_shown import describe, setting_of, state_of
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.given import moment as point
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment
from stationmaster_client.names import last
from stationmaster_client.times import to_timestamp

if TYPE_CHECKING:
    from stationmaster.v1 import credential_pb2

app = group("Credentials: secrets and settings by name, encrypted, and never read without an audit event.")

Credential = Annotated[str, typer.Argument(help="The credential's id.", metavar="CREDENTIAL")]
Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]
Category = Annotated[str, typer.Option("--category", help="One word by which credentials are listed.")]
Tags = Annotated[list[str], typer.Option("--tag", metavar="TAG", help="A word to find it by; may be repeated.")]
Variable = Annotated[
    str,
    typer.Option("--variable", metavar="NAME", help="A variable of the server that is read while there is no version."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]

_LABELS = ("current", "previous", "pending")


@command(app, "create")
async def create(
    run: Run,
    credential_id: Annotated[str, typer.Argument(help="An id of your choice.", metavar="ID")],
    value_file: ValueFile = "",
    setting: Setting = "",
    empty: Annotated[bool, typer.Option("--empty", help="Without a value for now.")] = False,
    name: Name = "",
    description: Description = "",
    category: Category = "",
    tag: Tags = [],  # noqa: B006
    expires: Expires = "",
    variable: Variable = "",
    dry_run: DryRun = False,
) -> None:
    """Store a secret, which is asked for, or a setting. The secret is never an argument: others can see those."""
    from stationmaster.v1 import credential_pb2

    wanted = credential_pb2.Credential(
        display_name=name,
        description=description,
        category=category,
        tags=tag,
        environment_variable=variable,
        expire_time=to_timestamp(point(expires, "--expires")),
    )
    without = "--empty" if empty else "--variable" if variable else ""
    given = content(run, value_file, setting, without=without)
    made = await run.client.credentials.create(credential_id, credential=wanted, validate_only=dry_run, **given)
    describe(run.out, made)


@command(app, "list")
async def list_credentials(
    run: Run,
    deleted: Annotated[bool, typer.Option("--all", help="Those that are deleted, too.")] = False,
    condition: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
) -> None:
    """List the credentials that you see, without their secrets."""
    from stationmaster.v1 import credential_pb2

    def row(credential: credential_pb2.Credential) -> tuple[str, ...]:
        shown = setting_of(credential.setting) if credential.HasField("setting") else ""
        return (
            last(credential.name),
            credential.category,
            shown or ("secret" if credential.current_version else "no value"),
            state_of(credential),
            last(credential.current_version),
            moment(credential.expire_time),
            age(credential.update_time),
            credential.display_name,
        )

    await show(
        run.out,
        run.client.credentials.list(show_deleted=deleted, **query(condition, order_by, limit)),
        credential_pb2.ListCredentialsResponse(),
        "credentials",
        limit=limit,
        columns=("CREDENTIAL", "CATEGORY", "VALUE", "STATE", "VERSION#", "EXPIRES", "CHANGED", "NAME"),
        row=row,
        empty="No credentials. Store one: stationmaster credentials create github-token",
    )


@command(app, "show", also="get")
async def get(run: Run, credential: Credential) -> None:
    """Show one credential, without its secret."""
    describe(run.out, await run.client.credentials.get(credential))


@command(app, "update")
async def update(
    run: Run,
    credential: Credential,
    name: Name = "",
    description: Description = "",
    category: Category = "",
    tag: Tags = [],  # noqa: B006
    expires: Expires = "",
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Take the end away.")] = False,
    variable: Variable = "",
    dry_run: DryRun = False,
) -> None:
    """Change what is said about a credential. Its value: add-version, rotate."""
    current = await run.client.credentials.get(credential)
    before = type(current).FromString(current.SerializeToString())
    current.display_name = name or current.display_name
    current.description = description or current.description
    current.category = category or current.category
    current.environment_variable = variable or current.environment_variable
    if tag:
        current.tags[:] = filter(None, tag)
    if never_expires:
        current.ClearField("expire_time")
    elif expires:
        current.expire_time.CopyFrom(to_timestamp(point(expires, "--expires")) or current.expire_time)
    paths = ("display_name", "description", "category", "tags", "environment_variable", "expire_time")
    changed = [path for path in paths if getattr(current, path) != getattr(before, path)]
    if not changed:
        raise CommandError("nothing to change: give options")
    describe(run.out, await run.client.credentials.update(current, changed, validate_only=dry_run))


@command(app, "delete")
async def delete(run: Run, credential: Credential) -> None:
    """Delete a credential; `undelete` takes it back until it is purged."""
    describe(run.out, await run.client.credentials.delete(credential))


@command(app, "undelete")
async def undelete(run: Run, credential: Credential) -> None:
    """Take a deletion back."""
    describe(run.out, await run.client.credentials.undelete(credential))


@command(app, "access")
async def access(
    run: Run,
    credential: Credential,
    version: Annotated[int, typer.Option("--version", min=0, metavar="N", help="A version.")] = 0,
    label: Annotated[str, typer.Option("--label", help="current, previous or pending.")] = "current",
    purpose: Annotated[str, typer.Option("--purpose", help="What it is for; the audit trail tells it.")] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write it to a new file, mode 0600.")
    ] = "",
) -> None:
    """Print a value, and nothing else."""
    from stationmaster.v1 import credential_pb2

    if label not in _LABELS:
        raise CommandError(f"--label is one of {', '.join(_LABELS)}")
    number = credential_pb2.CredentialLabel.Value(f"CREDENTIAL_LABEL_{label.upper()}")
    found = await run.client.credentials.access(credential, version=version, label=number, purpose=purpose)
    text = setting_of(found.setting) if found.HasField("setting") else found.value
    if output:
        _write(output, text)
    elif run.out.as_json:
        run.out.json(found)
    else:
        sys.stdout.write(text + ("\n" if sys.stdout.isatty() or found.HasField("setting") else ""))


def _write(file: str, text: str) -> None:
    import os

    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
        out.write(text)
