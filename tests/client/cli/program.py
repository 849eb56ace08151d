"""Runs the command line as people do: as a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.forks import COMMAND_LINE, run


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

    async def many(self, commands: Sequence[Sequence[str]]) -> list[Result]:
        """Run commands one after the other in one process, which saves its start; they end as `__call__`'s do."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MANY, json.dumps(commands)), env=self.environment(), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return [Result(*one) for one in json.loads(out)]

    async def __call__(self, *arguments: str, stdin: str = "", **more: str) -> Result:
        """Run a command to its end."""
        return Result(*await run(COMMAND_LINE, arguments, self.environment(**more), stdin=stdin))


_MANY = """
import contextlib, io, json, sys
from stationmaster_client.cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["stationmaster", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""
