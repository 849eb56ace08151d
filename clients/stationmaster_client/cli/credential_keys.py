"""stationmaster credentials: the installation's encryption keys, and imports from the environment."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.credentials import Category, DryRun, app
from stationmaster_client.cli.credentials_shown import describe_keys, state_of
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.names import last

if TYPE_CHECKING:
    from stationmaster.v1 import credential_pb2

_ON_EXISTING = ("skip", "add-version", "fail")
_LOOK_SECONDS = 0.5
_STUCK_LOOKS = 120


@command(app, "rotate-key")
async def rotate_key(
    run: Run,
    key_id: Annotated[
        str, typer.Argument(help="The key to change to; default: the newest, or a new one.", metavar="[KEY]")
    ] = "",
    new: Annotated[
        bool, typer.Option("--new", help="Make KEY: in the key file of development, or by AWS KMS.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop a rotation; the next one goes on.")] = False,
    retire: Annotated[bool, typer.Option("--retire", help="Take KEY out of use for good.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until everything is wrapped by the new key.")] = False,
) -> None:
    """Change the key that the installation encrypts with. For operators."""
    from stationmaster.v1 import credential_pb2

    if stop and retire:
        raise CommandError("--stop and --retire exclude each other")
    if new and (stop or retire):
        raise CommandError("--new is for a rotation that begins: leave out --stop or --retire")
    action = credential_pb2.KEY_ACTION_START
    if stop or retire:
        action = credential_pb2.KEY_ACTION_STOP if stop else credential_pb2.KEY_ACTION_RETIRE
    status = await run.client.credentials.rotate_key(key_id, action=action, make_new=new)
    if wait:
        status = await _until_done(run, status)
    describe_keys(run.out, status)
    if wait and status.rotation.state == credential_pb2.KEY_ROTATION_STATE_RUNNING:
        left = f"{status.rotation.remaining} versions are left, and nothing was wrapped anew for a minute"
        raise CommandError(f"{left}: the servers' log names those that do not open; destroy them", ExitCode.CONFLICT)


async def _until_done(run: Run, status: credential_pb2.KeyStatus) -> credential_pb2.KeyStatus:
    """The status when the rotation is done, or gets no further."""
    from stationmaster.v1 import credential_pb2

    looks = 0
    while status.rotation.state == credential_pb2.KEY_ROTATION_STATE_RUNNING and looks < _STUCK_LOOKS:
        await asyncio.sleep(_LOOK_SECONDS)
        before, status = status.rotation.remaining, await run.client.credentials.key_status()
        looks = looks + 1 if status.rotation.remaining == before else 0
    return status


@command(app, "key-status")
async def key_status(run: Run) -> None:
    """Show the encryption keys, how much each wraps, and how far a rotation is. For operators."""
    describe_keys(run.out, await run.client.credentials.key_status())


@command(app, "import-environment")
async def import_environment(
    run: Run,
    prefix: Annotated[str, typer.Argument(help="What the names of the variables begin with.", metavar="PREFIX")],
    from_server: Annotated[
        bool, typer.Option("--from-server", help="The server's variables, not yours. For operators.")
    ] = False,
    strip_prefix: Annotated[bool, typer.Option("--strip-prefix", help="Leave the prefix out of the ids.")] = False,
    category: Category = "",
    existing: Annotated[str, typer.Option("--existing", help="skip, add-version or fail.")] = "skip",
    dry_run: DryRun = False,
) -> None:
    """Make credentials of your environment's variables: OPENAI_API_KEY becomes openai-api-key."""
    from stationmaster.v1 import credential_pb2

    if existing not in _ON_EXISTING:
        raise CommandError(f"--existing is one of {', '.join(_ON_EXISTING)}")
    variables = {} if from_server else {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    if not variables and not from_server:
        raise CommandError(f"no variable of your environment begins with {prefix}")
    done = await run.client.credentials.import_environment(
        variables,
        prefix=prefix,
        strip_prefix=strip_prefix,
        category=category,
        on_existing=credential_pb2.OnExisting.Value(f"ON_EXISTING_{existing.replace('-', '_').upper()}"),
        validate_only=dry_run,
    )
    if run.out.as_json:
        run.out.json(done)
        return
    rows = [(last(made.name), made.category, state_of(made), last(made.current_version)) for made in done.credentials]
    run.out.table(("CREDENTIAL", "CATEGORY", "STATE", "VERSION#"), rows, empty="Nothing was imported.")
    for name in done.skipped:
        run.out.note(f"{name} is there already and was left as it is")
