"""Runs the command line as people do: as a program of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Program:
    """`stationmaster`, with a configuration of its own."""

    home: Path
    target: str = ""
    api_key: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of the test, without what belongs to this machine's user."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STATIONMASTER_")}
        ours = {
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "STATIONMASTER_DATA_FOLDER": str(self.home / "data"),
            "STATIONMASTER_TARGET": self.target,
            "STATIONMASTER_API_KEY": self.api_key,
        }
        return clean | {name: value for name, value in ours.items() if value} | more

    async def start(self, *arguments: str, **more: str) -> asyncio.subprocess.Process:
        """Start a command."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "stationmaster_client.cli.main", *arguments)
        return await asyncio.create_subprocess_exec(
            *command, env=self.environment(**more), stdin=pipe, stdout=pipe, stderr=pipe
        )

    async def __call__(self, *arguments: str, stdin: str = "", **more: str) -> Result:
        """Run a command to its end."""
        process = await self.start(*arguments, **more)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
        return Result(process.returncode or 0, out.decode(), err.decode())
