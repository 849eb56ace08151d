"""stationmaster files: the files of sessions' workspaces."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from stationmaster_client.cli import resolve, upload_ids
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.download import PATIENCE, aside, free
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, Session
from stationmaster_client.cli.output import age, size
from stationmaster_client.cli.transfer import bar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from stationmaster.v1 import storage_pb2

Folder = Annotated[str, typer.Argument(help="A folder of the workspace; default: all of it.", metavar="FOLDER")]
RemotePath = Annotated[str, typer.Argument(help="The path in the workspace.", metavar="PATH")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Everything below a folder, too.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]

app = group("The files of sessions' workspaces.")


@command(app, "ls")
async def ls(
    run: Run,
    session: Session,
    folder: Folder = "",
    recursive: Recursive = False,
    pattern: Annotated[str, typer.Option("--name", metavar="PATTERN", help="Only such names, as '*.csv'.")] = "",
    limit: Limit = 1000,
) -> None:
    """List the files and folders of a workspace, or of a folder in it."""
    from stationmaster.v1 import storage_pb2

    name, folder = await resolve.session(run.client, session), folder.rstrip("/")
    if folder:
        await run.client.files.stat(name, folder)  # what is not there is not empty
    await show(
        run.out,
        run.client.files.list(
            name,
            folder,
            recursive=recursive,
            filter=f'name = "{pattern}"' if pattern else "",
            page_size=min(limit, 1000),
        ),
        storage_pb2.ListFilesResponse(),
        "files",
        limit=limit,
        columns=("PATH", "SIZE#", "CHANGED"),
        row=_row,
        empty="No files.",
    )


@command(app, "tree")
async def tree(run: Run, session: Session, folder: Folder = "", limit: Limit = 1000) -> None:
    """Show the files of a workspace as a tree."""
    from rich.text import Text
    from rich.tree import Tree
    from stationmaster.v1 import storage_pb2

    from stationmaster_client.cli.output import clean

    folder = folder.rstrip("/")
    listing = run.client.files.list(
        await resolve.session(run.client, session), folder, recursive=True, page_size=min(limit, 1000)
    )
    if run.out.as_json:
        await show(
            run.out, listing, storage_pb2.ListFilesResponse(), "files", limit=limit, columns=(), row=_row, empty=""
        )
        return
    root = Tree(Text(clean(f"{folder or '.'}/"), "bold"), guide_style="dim")
    branches, count, total = {PurePosixPath(folder or "."): root}, 0, 0
    async for file in listing:
        if count == limit:
            run.out.note(f"There are more than {limit}: --limit shows more.")
            break
        path = PurePosixPath(file.path)
        for parent in [each for each in reversed(path.parents) if each not in branches and each.name]:
            if parent.is_relative_to(folder or "."):
                branches[parent] = branches[parent.parent].add(Text(clean(f"{parent.name}/"), "bold"))
        branches[path.parent].add(Text(clean(f"{path.name}  ")).append(size(file.size_bytes), "dim"))
        count, total = count + 1, total + file.size_bytes
    run.out.console.print(root)
    run.out.note(f"{count} files, {size(total)}")


@command(app, "put")
async def put(
    run: Run,
    session: Session,
    source: Annotated[str, typer.Argument(help="A file, a folder with -r, or - for standard input.", metavar="FILE")],
    path: Annotated[str, typer.Argument(help="Its path in the workspace; default: its name.", metavar="[PATH]")] = "",
    recursive: Recursive = False,
    force: Force = False,
) -> None:
    """Upload a file. A broken connection, or a server that starts again, is gone on with."""
    from stationmaster.v1 import storage_pb2

    name = await resolve.session(run.client, session)
    answer = storage_pb2.ListFilesResponse()
    for local, remote in _sources(run, source, path, recursive=recursive):
        answer.files.append(await _upload(run, name, local, remote, force=force))
        if not run.out.as_json:
            run.out.print(f"{remote} ({size(answer.files[-1].size_bytes)})")
    if run.out.as_json:
        run.out.json(answer if recursive else answer.files[0])


@command(app, "get")
async def get(
    run: Run,
    session: Session,
    path: RemotePath,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file or, with -r, folder to write; - is standard output."
        ),
    ] = "",
    recursive: Recursive = False,
    force: Force = False,
) -> None:
    """Download a file, or a folder with -r. A broken connection is gone on with."""
    from stationmaster.v1 import storage_pb2

    name = await resolve.session(run.client, session)
    if output == "-" and not recursive:
        await _download(run, name, path, sys.stdout.buffer)
        return
    if not recursive:
        target = free(output or PurePosixPath(path).name, force=force)
        run.out.done(await _save(run, name, path, target), f"{target} ({size(target.stat().st_size)})")
        return
    answer = storage_pb2.ListFilesResponse()
    folder, root = path.strip("/"), Path(output or PurePosixPath(path.strip("/")).name or ".")
    async for file in run.client.files.list(name, folder, recursive=True, page_size=1000):
        target = root / _inside(file.path, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        answer.files.append(await _save(run, name, file.path, free(str(target), force=force)))
        if not run.out.as_json:
            run.out.print(f"{target} ({size(file.size_bytes)})")
    if not answer.files:
        raise CommandError(f"there are no files in {path}")
    if run.out.as_json:
        run.out.json(answer)


@command(app, "rm")
async def rm(
    run: Run,
    session: Session,
    paths: Annotated[list[str], typer.Argument(help="Paths in the workspace.", metavar="PATH...")],
    recursive: Recursive = False,
) -> None:
    """Delete files, and with -r all files of folders."""
    from stationmaster.v1 import storage_pb2

    name = await resolve.session(run.client, session)
    answer = storage_pb2.ListFilesResponse()
    async with aclosing(_below(run, name, paths) if recursive else _named(run, name, paths)) as files:
        async for file in files:
            await run.client.files.delete(name, file.path, etag=file.etag)
            answer.files.append(file)
            if not run.out.as_json:
                run.out.print(f"{file.path} is deleted")
    if run.out.as_json:
        run.out.json(answer)


@command(app, "mv")
async def mv(
    run: Run,
    session: Session,
    path: RemotePath,
    destination: Annotated[str, typer.Argument(help="Its new path.", metavar="DESTINATION")],
    force: Force = False,
) -> None:
    """Give a file another path; a destination that ends with a slash is a folder."""
    from stationmaster_client.errors import AlreadyExists

    if destination.endswith("/"):
        destination += PurePosixPath(path).name
    name = await resolve.session(run.client, session)
    try:
        moved = await run.client.files.move(name, path, destination, overwrite=force)
    except AlreadyExists:
        raise CommandError(f"{destination} exists already: --force replaces it", ExitCode.CONFLICT) from None
    run.out.done(moved, f"{path} is {moved.path} now")


@command(app, "give-up")
async def give_up(
    run: Run,
    session: Session,
    source: Annotated[str, typer.Argument(help="The file that was being uploaded.", metavar="FILE")],
    path: Annotated[str, typer.Argument(help="Its path in the workspace; default: its name.", metavar="[PATH]")] = "",
) -> None:
    """Give up an upload that broke off, and what it holds of the quota; else `put` goes on with it."""
    from google.protobuf.empty_pb2 import Empty

    name = await resolve.session(run.client, session)
    for local, remote in _sources(run, source, path, recursive=True):
        await run.client.files.cancel_upload(name, upload_ids.of(name, remote, local))
        run.out.done(Empty(), f"the upload of {remote} is given up")


async def _upload(run: Run, session: str, local: Path | BinaryIO, remote: str, *, force: bool) -> storage_pb2.File:
    from stationmaster_client.errors import Aborted
    from stationmaster_client.files import NONE

    try:
        upload_id = await upload_ids.to_go_on(run, session, upload_ids.of(session, remote, local))
        with bar(run.out, remote) as (tell, interrupted):
            return await run.client.files.upload(
                session,
                remote,
                local,
                etag="" if force else NONE,
                upload_id=upload_id,
                patience=PATIENCE,
                on_progress=tell,
                on_interruption=interrupted,
            )
    except Aborted as error:
        if force or error.reason != "ETAG_MISMATCH":
            raise
        raise CommandError(f"{remote} exists already: --force replaces it", ExitCode.CONFLICT) from None
    except OSError as error:
        raise CommandError(f"{local} cannot be read: {error.strerror}") from None


async def _save(run: Run, session: str, path: str, target: Path) -> storage_pb2.File:
    with aside(target) as file:
        return await _download(run, session, path, file)


async def _download(run: Run, session: str, path: str, file: BinaryIO) -> storage_pb2.File:
    from stationmaster.v1 import storage_pb2

    found = await run.client.files.stat(session, path)
    if found.kind == storage_pb2.FILE_KIND_FOLDER:
        raise CommandError(f"{path} is a folder: download all that is in it with -r")
    with bar(run.out, path) as (tell, interrupted):
        stream = run.client.files.download(
            session, path, etag=found.etag, patience=PATIENCE, on_interruption=interrupted
        )
        async with stream as pieces:
            async for piece in pieces:
                file.write(piece)
                tell(pieces.last_sequence, found.size_bytes)
    file.flush()
    return found


def _sources(run: Run, source: str, path: str, *, recursive: bool) -> Iterator[tuple[Path | BinaryIO, str]]:
    """The files to upload, and the path of each in the workspace."""
    if source == "-":
        if not path:
            raise CommandError("standard input has no name: give the path that it is to have")
        yield _spooled(), path
        return
    local = Path(source)
    if local.is_dir():
        if not recursive:
            raise CommandError(f"{source} is a folder: upload all that is in it with -r")
        prefix = PurePosixPath(path.strip("/") or local.resolve().name)
        for each in sorted(local.rglob("*")):
            if each.is_symlink():
                run.out.note(f"{each} is left out: it is a link")
            elif each.is_file():
                yield each, str(prefix / each.relative_to(local).as_posix())
        return
    if not local.is_file():
        raise CommandError(f"{source} is not a file" if local.exists() else f"{source} is not there")
    yield local, path + local.name if path.endswith("/") or not path else path


def _spooled() -> BinaryIO:
    """Standard input as a file that can be read again."""
    import shutil
    from tempfile import SpooledTemporaryFile
    from typing import cast

    file = SpooledTemporaryFile(1 << 20)  # noqa: SIM115 - closed when nobody has it any more
    shutil.copyfileobj(sys.stdin.buffer, file)
    return cast("BinaryIO", file)


def _inside(path: str, folder: str) -> PurePosixPath:
    """A path below a folder. Names of a server are not trusted to stay where they should."""
    relative = PurePosixPath(path).relative_to(folder) if folder else PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\\" in path:
        raise CommandError(f"{path!r} would lead out of the folder")
    return relative


async def _named(run: Run, session: str, paths: list[str]) -> AsyncGenerator[storage_pb2.File, None]:
    for path in paths:
        yield await run.client.files.stat(session, path.rstrip("/"))


async def _below(run: Run, session: str, paths: list[str]) -> AsyncGenerator[storage_pb2.File, None]:
    from stationmaster.v1 import storage_pb2

    for path in paths:
        found = await run.client.files.stat(session, path.rstrip("/"))
        if found.kind == storage_pb2.FILE_KIND_FILE:
            yield found
            continue
        files = [each async for each in run.client.files.list(session, found.path, recursive=True, page_size=1000)]
        for file in files or [found]:
            yield file


def _row(file: storage_pb2.File) -> tuple[str, ...]:
    from stationmaster.v1 import storage_pb2

    if file.kind == storage_pb2.FILE_KIND_FOLDER:
        return f"{file.path}/", "", ""
    return file.path, size(file.size_bytes), age(file.update_time)
