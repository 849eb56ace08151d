"""files.list, files.read, files.write, files.search, where workspaces are in object storage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from stationmaster_server.agents.tools.files import (
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    MAX_MATCHES,
    MAX_SEARCHED_FILES,
    ListArguments,
    ReadArguments,
    SearchArguments,
    WriteArguments,
    content_of,
    file_tools,
    listed,
    matched,
    matches,
    text_of,
)
from stationmaster_server.agents.tools.tool import Tool, ToolContext, ToolError
from stationmaster_server.errors import Aborted, StationmasterError
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Place
from stationmaster_server.storage.shelf import Shelf
from stationmaster_server.storage.workspace import TooLarge


class BucketFiles:
    """What the four tools do."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def tools(self) -> tuple[Tool, ...]:
        """The four tools."""
        return file_tools(self.list_files, self.read_file, self.write_file, self.search_files)

    async def list_files(self, context: ToolContext, arguments: ListArguments) -> str:
        """One line for each entry; a folder ends with a slash."""
        with _told(arguments.path):
            return listed(
                await self._shelf(context).entries(arguments.path, recursive=arguments.recursive, limit=MAX_ENTRIES + 1)
            )

    async def read_file(self, context: ToolContext, arguments: ReadArguments) -> str:
        """The file's text."""
        with _told(arguments.path):
            return text_of(arguments.path, await self._shelf(context).read(arguments.path, MAX_FILE_BYTES))

    async def write_file(self, context: ToolContext, arguments: WriteArguments) -> str:
        """Says how much was written."""
        content = content_of(arguments)
        with _told(arguments.path):
            await self._shelf(context).write(arguments.path, content)
        return f"Wrote {len(content)} bytes to {arguments.path}."

    async def search_files(self, context: ToolContext, arguments: SearchArguments) -> str:
        """One `path:line: text` for each line that holds the text."""
        shelf, lines = self._shelf(context), list[str]()
        with _told(arguments.path):
            for entry in await shelf.entries(arguments.path, recursive=True, limit=MAX_SEARCHED_FILES):
                try:
                    content = await shelf.read(entry.path, MAX_FILE_BYTES)
                except (PathRefused, TooLarge, FileNotFoundError, Aborted):  # gone, or just being changed
                    continue
                lines += await asyncio.to_thread(_found, entry.path, content, arguments, MAX_MATCHES + 1 - len(lines))
                if len(lines) > MAX_MATCHES:
                    break
        return matched(arguments, lines)

    def _shelf(self, context: ToolContext) -> Shelf:
        return Shelf(self._place, context.organization_id, context.session_id)


def _found(path: str, content: bytes, arguments: SearchArguments, most: int) -> list[str]:
    """The first lines of a file that hold the text; it has none unless it is a text."""
    try:
        return list(islice(matches(path, content.decode(), arguments), most))
    except UnicodeDecodeError:
        return []


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (PathRefused, TooLarge, StationmasterError) as error:
        raise ToolError(str(error)) from None
    except FileNotFoundError:
        raise ToolError(f"{path} does not exist") from None
