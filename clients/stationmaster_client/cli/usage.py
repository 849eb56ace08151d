"""stationmaster usage: how much is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.output import size

if TYPE_CHECKING:
    from stationmaster.v1 import storage_pb2

Owner = Annotated[
    str,
    typer.Argument(help="A user (name, email, me) or organization (yours) or organizations/ID.", metavar="OWNER"),
]


async def usage(run: Run, owner: Owner = "me") -> None:
    """Show how much is stored in the files of workspaces and in archives, and how much may be."""
    used = await run.client.files.usage(await resolve.owner(run.client, owner))
    if run.out.as_json:
        run.out.json(used)
        return
    run.out.details(
        [
            ("owner", used.name.removesuffix("/storageUsage")),
            ("stored", _stored(used)),
            (
                "archived",
                f"{size(used.archive_bytes)} in {used.archive_count:,} archives" if used.archive_count else "",
            ),
            ("uploading", size(used.reserved_bytes) if used.reserved_bytes else ""),
            ("limit", _limit(used)),
        ]
    )


def _stored(used: storage_pb2.StorageUsage) -> str:
    in_files = used.used_bytes - used.archive_bytes
    return f"{size(in_files)} in {used.file_count:,} files of {used.workspace_count:,} workspaces"


def _limit(used: storage_pb2.StorageUsage) -> str:
    if not used.HasField("max_bytes"):
        return "none"
    taken = used.used_bytes + used.reserved_bytes
    left = max(used.max_bytes - taken, 0)
    return f"{size(used.max_bytes)}, {size(left)} left"
