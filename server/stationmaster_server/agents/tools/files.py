"""files.list, files.read, files.write, files.search: the workspace of the session, a folder of this host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

from pydantic import Field

from stationmaster_server.agents.model import Effect
from stationmaster_server.agents.tools.tool import Arguments, Tool, ToolContext, ToolError, TypedTool
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.workspace import Entry, TooLarge, Workspace

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 2_000
MAX_SEARCHED_FILES = 5_000
MAX_MATCHES = 200
MAX_LINE = 300

T = TypeVar("T")
A = TypeVar("A", bound=Arguments)
Work: TypeAlias = Callable[[ToolContext, A], Awaitable[str]]


class ListArguments(Arguments):
    path: str = Field(".", description="The folder, relative to the workspace.", max_length=1024)
    recursive: bool = Field(False, description="Whether to list what is in its folders too.")


class ReadArguments(Arguments):
    path: str = Field(description="The file, relative to the workspace.", max_length=1024)


class WriteArguments(Arguments):
    path: str = Field(description="The file, relative to the workspace. Its folders are made.", max_length=1024)
    content: str = Field(description="The whole new content.", max_length=MAX_FILE_BYTES)


class SearchArguments(Arguments):
    text: str = Field(description="The text to find.", min_length=1, max_length=1000)
    path: str = Field(".", description="The folder to search in, relative to the workspace.", max_length=1024)
    match_case: bool = Field(False, description="Whether capital letters matter.")


async def list_files(context: ToolContext, arguments: ListArguments) -> str:
    """One line for each entry; a folder ends with a slash."""

    def work(stopped: threading.Event) -> str:
        workspace = Workspace(context.workspace)
        entries = workspace.walk(arguments.path) if arguments.recursive else workspace.entries(arguments.path)
        return listed(_bounded(entries, MAX_ENTRIES + 1, stopped))

    return await _in_thread(work, arguments.path)


async def read_file(context: ToolContext, arguments: ReadArguments) -> str:
    """The file's text."""

    def work(_: threading.Event) -> str:
        content = Workspace(context.workspace).read(arguments.path, MAX_FILE_BYTES)
        return text_of(arguments.path, content)

    return await _in_thread(work, arguments.path)


async def write_file(context: ToolContext, arguments: WriteArguments) -> str:
    """Says how much was written."""

    def work(_: threading.Event) -> str:
        content = content_of(arguments)
        Workspace(context.workspace).write(arguments.path, content)
        return f"Wrote {len(content)} bytes to {arguments.path}."

    return await _in_thread(work, arguments.path)


async def search_files(context: ToolContext, arguments: SearchArguments) -> str:
    """One `path:line: text` for each line that holds the text."""

    def work(stopped: threading.Event) -> str:
        workspace = Workspace(context.workspace)
        return matched(arguments, list(_bounded(_matches(workspace, arguments, stopped), MAX_MATCHES + 1, stopped)))

    return await _in_thread(work, arguments.path)


def file_tools(
    lister: Work[ListArguments] = list_files,
    reader: Work[ReadArguments] = read_file,
    writer: Work[WriteArguments] = write_file,
    searcher: Work[SearchArguments] = search_files,
) -> tuple[Tool, ...]:
    """The four tools, and what they do."""
    return (
        TypedTool("files.list", "List the files of the workspace.", ListArguments, lister),
        TypedTool("files.read", "Read a text file of the workspace.", ReadArguments, reader),
        TypedTool(
            "files.write",
            "Make or replace a text file of the workspace.",
            WriteArguments,
            writer,
            effect=Effect.ASK,
        ),
        TypedTool("files.search", "Find text in the files of the workspace.", SearchArguments, searcher),
    )


async def _in_thread(work: Callable[[threading.Event], T], path: str) -> T:
    """Runs blocking work beside the event loop; when the caller is cancelled the work is told to stop."""
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(work, stopped)
    except (PathRefused, TooLarge) as error:
        raise ToolError(str(error)) from None
    except FileNotFoundError:
        raise ToolError(f"{path} does not exist") from None
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from None
    finally:
        stopped.set()


def _bounded(items: Iterable[T], limit: int, stopped: threading.Event) -> Iterator[T]:
    for count, item in enumerate(items):
        if count >= limit or stopped.is_set():
            return
        yield item


def _matches(workspace: Workspace, arguments: SearchArguments, stopped: threading.Event) -> Iterator[str]:
    files = (entry for entry in workspace.walk(arguments.path) if entry.size_bytes is not None)
    for entry in _bounded(files, MAX_SEARCHED_FILES, stopped):
        try:
            text = workspace.read(entry.path, MAX_FILE_BYTES).decode()
        except (PathRefused, TooLarge, FileNotFoundError, UnicodeDecodeError):
            continue
        yield from matches(entry.path, text, arguments)


def matches(path: str, text: str, arguments: SearchArguments) -> Iterator[str]:
    """The lines of a file that hold the text."""
    wanted = arguments.text if arguments.match_case else arguments.text.casefold()
    for number, line in enumerate(text.splitlines(), 1):
        if wanted in (line if arguments.match_case else line.casefold()):
            yield f"{path}:{number}: {line[:MAX_LINE]}"


def matched(arguments: SearchArguments, lines: list[str]) -> str:
    """What the model is told of matches."""
    if len(lines) > MAX_MATCHES:
        lines[MAX_MATCHES:] = [f"[and more: only the first {MAX_MATCHES} are shown]"]
    return "\n".join(lines) or f"Nothing found for {arguments.text!r}."


def listed(entries: Iterable[Entry]) -> str:
    """What the model is told of entries."""
    lines = [_line(entry) for entry in entries]
    if len(lines) > MAX_ENTRIES:
        lines[MAX_ENTRIES:] = [f"[and more: only the first {MAX_ENTRIES} are shown]"]
    return "\n".join(lines) or "(empty)"


def text_of(path: str, content: bytes) -> str:
    """A file's text. Raises ToolError."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not text: {len(content)} bytes that are not UTF-8") from None


def content_of(arguments: WriteArguments) -> bytes:
    """What is to be written. Raises ToolError: too much."""
    content = arguments.content.encode()
    if len(content) > MAX_FILE_BYTES:
        raise ToolError(f"the content is larger than {MAX_FILE_BYTES} bytes")
    return content


def _line(entry: Entry) -> str:
    return f"{entry.path}/" if entry.size_bytes is None else f"{entry.path} ({entry.size_bytes} bytes)"
