"""stationmaster keys: API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment

if TYPE_CHECKING:
    from stationmaster.v1 import identity_pb2

app = group("API keys.")


@command(app, "create")
async def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="A name for people.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Whose key it is; without it your own.")] = "",
    scope: Annotated[list[str], typer.Option("--scope", help="May be repeated; none: all that the role allows.")] = [],  # noqa: B006
    days: Annotated[int, typer.Option("--days", min=0, help="How long it lasts; 0: for ever.")] = 0,
) -> None:
    """Make a key. Its secret is printed on standard output, this once."""
    made = await run.client.keys.create(
        name,
        user=await resolve.user(run.client, user) if user else "",
        scopes=scope,
        expire_time=datetime.now(UTC) + timedelta(days=days) if days else None,
    )
    if run.out.as_json:
        run.out.json(made)
        return
    run.out.note(f"{made.api_key.name}; keep the secret, it is not shown again:")
    run.out.print(made.secret)


@command(app, "list")
async def list_keys(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List keys, without secrets."""
    from stationmaster.v1 import identity_pb2

    def row(key: identity_pb2.ApiKey) -> tuple[str, ...]:
        return (
            resolve.short(key.name),
            key.prefix,
            key.display_name,
            resolve.short(key.user),
            "revoked" if key.revoked else "",
            ", ".join(key.scopes) or "all of the role",
            age(key.last_used_time) or "never",
            moment(key.expire_time) or "never",
        )

    await show(
        run.out,
        run.client.keys.list(**query(condition, order_by, limit)),
        identity_pb2.ListApiKeysResponse(),
        "api_keys",
        limit=limit,
        columns=("KEY", "PREFIX", "NAME", "USER", "STATE", "SCOPES", "LAST USED", "EXPIRES"),
        row=row,
        empty="No keys.",
    )


@command(app, "revoke")
async def revoke(
    run: Run, key: Annotated[str, typer.Argument(help="The key's name, or the end of its id.", metavar="KEY")]
) -> None:
    """Revoke a key for good."""
    revoked = await run.client.keys.revoke(await resolve.key(run.client, key))
    run.out.done(revoked, f"{revoked.name} ({revoked.prefix}…) is revoked")
