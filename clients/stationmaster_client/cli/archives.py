"""stationmaster archives: the files of workspaces as they were."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO
from uuid import uuid4

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.download import PATIENCE, aside, free
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.given import span
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, Session, query
from stationmaster_client.cli.output import age, moment, plain, size
from stationmaster_client.cli.transfer import bar
from stationmaster_client.errors import StationmasterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stationmaster.v1 import storage_pb2

ENDINGS = {"gz": "TAR_GZ", "zst": "TAR_ZST"}
Archive = Annotated[
    str,
    typer.Argument(help="Its session; the end of the id is enough, - is the newest archive.", metavar="ARCHIVE"),
]
app = group("The files of workspaces as they were.")


@command(app, "create")
async def create(
    run: Run,
    session: Session,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="gz, or zst: faster and smaller.")] = "gz",
    force: Annotated[bool, typer.Option("--force", help="Replace the archive that the session has.")] = False,
) -> None:
    """Pack all files of a session's workspace into an archive."""
    from stationmaster.v1 import storage_pb2

    known = ENDINGS.get(form.lower().removeprefix("."))
    if known is None:
        raise CommandError(f"--format: there are no archives as {form!r}; there are: gz and zst")
    name = await resolve.session(run.client, session)
    with _told():
        made = await run.client.archives.create(
            name, format=storage_pb2.ArchiveFormat.Value(f"ARCHIVE_FORMAT_{known}"), overwrite=force
        )
    run.out.done(made, f"{made.name}: {made.file_count:,} files, {size(made.size_bytes)}")


@command(app, "ls")
async def ls(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List archives, newest first."""
    from stationmaster.v1 import storage_pb2

    await show(
        run.out,
        run.client.archives.list(**query(condition, order_by, limit)),
        storage_pb2.ListArchivesResponse(),
        "archives",
        limit=limit,
        columns=("ARCHIVE", "FORMAT", "SIZE#", "FILES#", "UNPACKED#", "MADE", "SHA256"),
        row=_row,
        empty="No archives.",
    )


@command(app, "show")
async def show_archive(run: Run, archive: Archive) -> None:
    """Show what is known of an archive."""
    found = await run.client.archives.get(await resolve.archive(run.client, archive))
    if run.out.as_json:
        run.out.json(found)
        return
    run.out.details(
        [
            ("archive", found.name),
            ("format", _ending(found).removeprefix(".")),
            ("size", size(found.size_bytes)),
            ("unpacked", f"{found.file_count:,} files, {size(found.content_bytes)}"),
            ("sha256", found.sha256),
            ("owner", found.owner),
            ("made", moment(found.create_time)),
            ("goes", moment(found.expire_time)),
        ]
    )


@command(app, "get")
async def get(
    run: Run,
    archive: Archive,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is standard output."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Download an archive. A broken connection is gone on with."""
    found = await run.client.archives.get(await resolve.archive(run.client, archive))
    if output == "-":
        await _download(run, found, sys.stdout.buffer)
        return
    target = free(output or f"{resolve.short(found.name)}{_ending(found)}", force=force)
    with aside(target) as file:
        await _download(run, found, file)
    run.out.done(found, f"{target} ({size(found.size_bytes)})")


@command(app, "restore")
async def restore(
    run: Run,
    session: Session,
    origin: Annotated[
        str, typer.Option("--from", metavar="ARCHIVE", help="The archive of another session; default: its own.")
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", exists=True, help="An archive on this machine, .tar.gz or .tar.zst."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Put the files of an archive into a session's workspace: all of them or none."""
    if origin and file is not None:
        raise CommandError("give either --from or --file: there can be one archive only")
    name = await resolve.session(run.client, session)
    if file is not None:
        workspace = await _restore_file(run, name, file, force=force)
    else:
        source = await resolve.archive(run.client, origin) if origin else name
        with _told():
            workspace = await run.client.archives.restore(name, source, overwrite=force)
    run.out.done(workspace, f"{workspace.name}: {workspace.file_count:,} files, {size(workspace.used_bytes)}")


@command(app, "rm")
async def rm(
    run: Run, archives: Annotated[list[str], typer.Argument(help="Their sessions.", metavar="ARCHIVE...")]
) -> None:
    """Delete archives."""
    from google.protobuf.empty_pb2 import Empty

    for text in archives:
        name = await resolve.archive(run.client, text)
        await run.client.archives.delete(name)
        run.out.done(Empty(), f"{name} is deleted")


@command(app, "cleanup")
async def cleanup(
    run: Run,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Only those that are so old: 90d, 12h.")
    ] = "",
    condition: Filter = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell which archives would be deleted.")] = False,
) -> None:
    """Delete the archives that are old enough, or that a filter fits; 1,000 at most."""
    if not older_than and not condition:
        raise CommandError("say which archives: by --older-than, by --filter, or by both")
    done = await run.client.archives.clean_up(
        filter=condition, older_than=span(older_than, "--older-than"), validate_only=dry_run
    )
    if not run.out.as_json:
        for name in done.sample:
            run.out.print(name)
    what = "would be" if dry_run else "are"
    run.out.done(done, f"{done.deleted_count:,} archives {what} deleted, {size(done.freed_bytes)}")


async def _download(run: Run, archive: storage_pb2.Archive, file: BinaryIO) -> None:
    with bar(run.out, archive.name) as (tell, interrupted):
        stream = run.client.archives.download(
            archive.name, etag=archive.etag, patience=PATIENCE, on_interruption=interrupted
        )
        async with stream as pieces:
            async for piece in pieces:
                file.write(piece)
                tell(pieces.last_sequence, archive.size_bytes)
    file.flush()


async def _restore_file(run: Run, session: str, file: Path, *, force: bool) -> storage_pb2.Workspace:
    """Upload it beside the files of the workspace, for as long as that takes."""
    ending = next((f".tar.{each}" for each in ENDINGS if file.name.endswith(f".tar.{each}")), None)
    if ending is None:
        raise CommandError(f"{file} is no archive: its name must end with .tar.gz or .tar.zst")
    path = f"restore-{uuid4().hex}{ending}"
    try:
        with bar(run.out, file.name) as (tell, interrupted):
            await run.client.files.upload(
                session, path, file, patience=PATIENCE, on_progress=tell, on_interruption=interrupted
            )
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    try:
        with _told(f"{session.replace('sessions/', 'workspaces/')}/files/{path}", str(file)):
            await run.client.archives.restore(session, path=path, overwrite=force)
    except BaseException:
        with suppress(StationmasterError):  # it would hide why nothing was restored
            await run.client.files.delete(session, path)
        raise
    await run.client.files.delete(session, path)
    return await run.client.files.workspace(session)


@contextmanager
def _told(name: str = "", instead: str = "") -> Iterator[None]:
    """Says what an option would do, and `instead` of a name that nobody has seen."""
    from stationmaster_client.errors import AlreadyExists

    try:
        yield
    except AlreadyExists as error:
        raise CommandError(f"{error.message}: --force replaces it", ExitCode.CONFLICT) from None
    except StationmasterError as error:
        if name:
            error.message = error.message.replace(name, instead)
        raise


def _ending(archive: storage_pb2.Archive) -> str:
    from stationmaster.v1 import storage_pb2

    return f".{plain(storage_pb2.ArchiveFormat.Name(archive.format), 'ARCHIVE_FORMAT').replace('_', '.')}"


def _row(archive: storage_pb2.Archive) -> tuple[str, ...]:
    return (
        resolve.short(archive.name),
        _ending(archive).removeprefix("."),
        size(archive.size_bytes),
        f"{archive.file_count:,}",
        size(archive.content_bytes),
        age(archive.create_time),
        archive.sha256[:12],
    )
