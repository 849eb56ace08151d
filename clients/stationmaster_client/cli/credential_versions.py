"""stationmaster credentials: versions, rotations and grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.credential_values import Expires, Grace, Setting, ValueFile, content
from stationmaster_client.cli.credentials import Credential, app
from stationmaster_client.cli.credentials_shown import describe, describe_version, grant_row, version_row
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.given import moment, span
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, Yes, query
from stationmaster_client.cli.terminal import confirm
from stationmaster_client.names import full, last
from stationmaster_client.times import to_duration, to_timestamp

if TYPE_CHECKING:
    from stationmaster.v1 import credential_pb2

Version = Annotated[int, typer.Argument(help="The version's number.", metavar="VERSION", min=1)]
_STEPS = ("begin", "passed", "failed", "finish", "abort", "rollback")


@command(app, "add-version")
async def add_version(
    run: Run,
    credential: Credential,
    value_file: ValueFile = "",
    setting: Setting = "",
    expires: Expires = "",
    pending: Annotated[bool, typer.Option("--pending", help="To be tried out first, not current yet.")] = False,
    grace: Grace = "",
) -> None:
    """Add a version; it becomes the current one."""
    given: dict[str, Any] = content(run, value_file, setting)
    made = await run.client.credentials.add_version(
        credential,
        expire_time=moment(expires, "--expires"),
        pending=pending,
        grace=span(grace, "--grace"),
        **given,
    )
    describe_version(run.out, made)


@command(app, "versions")
async def versions(
    run: Run, credential: Credential, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50
) -> None:
    """List the versions, newest first, without their secrets."""
    from stationmaster.v1 import credential_pb2

    await show(
        run.out,
        run.client.credentials.versions(credential, **query(condition, order_by, limit)),
        credential_pb2.ListCredentialVersionsResponse(),
        "versions",
        limit=limit,
        columns=("VERSION#", "STATE", "LABEL", "EXPIRES", "READABLE UNTIL", "KEY", "ADDED"),
        row=version_row,
        empty="No versions. Add one: stationmaster credentials add-version CREDENTIAL",
    )


@command(app, "disable")
async def disable(
    run: Run,
    credential: Credential,
    version: Version,
    undo: Annotated[bool, typer.Option("--undo", help="Enable it again.")] = False,
) -> None:
    """Disable a version: nobody gets its value any more."""
    describe_version(run.out, await run.client.credentials.disable_version(credential, version, enable=undo))


@command(app, "destroy")
async def destroy(run: Run, credential: Credential, version: Version, yes: Yes = False) -> None:
    """Erase a version for good; asks first when it is the current one, or the last that has a value."""
    if not yes and (losses := await _losses(run, credential, version)):
        confirm(run.out, losses)
    describe_version(run.out, await run.client.credentials.destroy_version(credential, version))


async def _losses(run: Run, credential: str, version: int) -> str:
    """What is lost with a version, if that is more than a value that nobody gets any more."""
    found = await run.client.credentials.get(credential)
    listing = run.client.credentials.versions(credential, filter="state != DESTROYED", page_size=1000)
    rest = {last(each.name) async for each in listing}
    name, number = last(found.name), str(version)
    if number not in rest:
        return ""
    if len(rest) == 1:
        what = "the only one that has a value"
    elif last(found.current_version) == number:
        what = "the current one"
    else:
        return ""
    after = "what uses it fails until it has another value"
    return f"version {number} of {name} is {what}: its value is erased for good, and {after}"


@command(app, "rotate")
async def rotate(
    run: Run,
    credential: Credential,
    step: Annotated[
        str,
        typer.Option("--step", help=f"Instead of replacing the value at once: {', '.join(_STEPS)}."),
    ] = "",
    value_file: ValueFile = "",
    setting: Setting = "",
    expires: Expires = "",
    grace: Grace = "",
    untried: Annotated[bool, typer.Option("--untried", help="Finish although no trial was reported.")] = False,
) -> None:
    """Replace the value at once, or in steps: begin, try it (`access --label pending`), passed or failed, finish."""
    from stationmaster.v1 import credential_pb2

    if step and step not in _STEPS:
        raise CommandError(f"--step is one of {', '.join(_STEPS)}")
    request = credential_pb2.RotateCredentialRequest(
        name=full("credentials", credential),
        expire_time=to_timestamp(moment(expires, "--expires")),
        grace=to_duration(span(grace, "--grace")),
        skip_trial=untried,
    )
    if step in ("passed", "failed"):
        request.step = credential_pb2.ROTATION_STEP_REPORT
        request.trial = credential_pb2.RotationTrial.Value(f"ROTATION_TRIAL_{step.upper()}")
    else:
        request.step = credential_pb2.RotationStep.Value(f"ROTATION_STEP_{(step or 'replace').upper()}")
    if step in ("", "begin"):
        _fill(run, request, value_file, setting)
    describe(run.out, await run.client.credentials.step(request))


@command(app, "grant")
async def grant(
    run: Run,
    credential: Credential,
    to: Annotated[
        str,
        typer.Option("--to", metavar="WHO", help="A user (name, end of the id, email address), apiKeys/… or agents/…."),
    ],
    purpose: Annotated[
        list[str], typer.Option("--purpose", help="Only for this; may be repeated. Without it for anything.")
    ] = [],  # noqa: B006
    expires: Expires = "",
) -> None:
    """Let somebody have the value."""
    made = await run.client.credentials.grant(
        credential, await resolve.principal(run.client, to), purposes=purpose, expire_time=moment(expires, "--expires")
    )
    if run.out.as_json:
        run.out.json(made)
    else:
        run.out.details(list(zip(("grant", "to", "for", "until", "since"), grant_row(made), strict=True)))


@command(app, "revoke")
async def revoke(
    run: Run,
    credential: Credential,
    grant_id: Annotated[str, typer.Argument(help="Its id, as `grants` lists it, or whom it is to.", metavar="GRANT")],
) -> None:
    """Take a grant back."""
    from google.protobuf.empty_pb2 import Empty

    name = await resolve.grant(run.client, credential, grant_id)
    await run.client.credentials.revoke(name)
    if run.out.as_json:
        run.out.json(Empty())
    else:
        run.out.print(f"{name} is revoked")


@command(app, "grants")
async def grants(
    run: Run, credential: Credential, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50
) -> None:
    """List who else may have the value."""
    from stationmaster.v1 import credential_pb2

    await show(
        run.out,
        run.client.credentials.grants(credential, **query(condition, order_by, limit)),
        credential_pb2.ListGrantsResponse(),
        "grants",
        limit=limit,
        columns=("GRANT", "TO", "FOR", "UNTIL", "SINCE"),
        row=grant_row,
        empty="No grants: only the owner gets the value.",
    )


def _fill(run: Run, request: credential_pb2.RotateCredentialRequest, file: str, setting: str) -> None:
    from stationmaster_client.values import to_value

    given = content(run, file, setting)
    if "setting" in given:
        request.setting.CopyFrom(to_value(given["setting"]))
    else:
        request.value = given["value"]
