"""Opens a text in the person's editor."""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.options import text_of

_FALLBACK = "vi"


async def edited(text: str, name: str) -> str:
    """The text as the editor leaves it: `$VISUAL`, else `$EDITOR`, else vi. Raises CommandError when that fails."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _FALLBACK
    with tempfile.TemporaryDirectory(prefix="stationmaster-") as folder:
        file = Path(folder) / name
        await asyncio.to_thread(file.write_text, text)
        try:
            process = await asyncio.create_subprocess_exec(*shlex.split(command), str(file))
        except (OSError, ValueError) as error:
            raise CommandError(f"the editor {command!r} cannot be started: {error}; set EDITOR") from None
        if await process.wait():
            raise CommandError(f"the editor {command!r} failed: nothing was changed")
        return await asyncio.to_thread(text_of, file)
