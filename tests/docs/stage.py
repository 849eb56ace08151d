"""Where the commands of a guide are run: a server, a folder, and what the guide takes for granted."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.docs.commands import Command
from tests.fixtures.forks import COMMAND_LINE, SERVER, run

_LIMIT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class First:
    """The name of the first thing that a command lists."""

    command: str
    before: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a guide takes for granted, and what cannot be here as it stands there."""

    before: tuple[str, ...] = ()
    """Commands that are run first."""
    values: Mapping[str, str | First] = field(default_factory=dict)
    """Text of the guide, and what stands for it here; with a `$` at its end, only at the end of a command."""
    typed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is typed at a terminal, by the beginning of a command: what is waited for, the answer, and so on."""
    endless: tuple[str, ...] = ()
    """Beginnings of commands that go on until they are interrupted."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Exit codes that are not 0, by the beginning of the command."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that are there."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set."""


class Stage:
    """Runs commands in a folder, against a server."""

    def __init__(self, program: Program, folder: Path, setting: Setting, database_url: str) -> None:
        self._program = program
        self._folder = folder
        self._setting = setting
        path = os.pathsep.join([str(_programs(folder)), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = program.environment(
            **{"PATH": path, "PAGER": "cat", "DATABASE_URL": database_url, **setting.environment}
        )
        for name, content in setting.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    async def prepare(self) -> None:
        """Make what the guide takes for granted."""
        for text in self._setting.before:
            code, out, err = await self._run(Command(await self._filled(text), 0))
            assert code == 0, (text, out, err)

    async def play(self, command: Command) -> None:
        """Run a command of the guide."""
        filled = Command(await self._filled(command.text), command.line)
        if any(_begins(command.text, beginning) for beginning in self._setting.endless):
            await self._interrupt(filled)
            return
        typed = value_of(self._setting.typed, command.text, ())
        code, out, err = await (self._type(filled, typed) if typed else self._run(filled))
        assert code == value_of(self._setting.codes, command.text, 0), f"line {command.line}: {filled.text}\n{out}{err}"

    async def _filled(self, text: str) -> str:
        for placeholder, value in self._setting.values.items():
            wanted = placeholder.removesuffix("$")
            if text.endswith(wanted) if wanted != placeholder else wanted in text:
                found = value if isinstance(value, str) else await self._first(value)
                text = text.replace(wanted, found)
        return text

    async def _first(self, wanted: First) -> str:
        code, out, err = await self._run(Command(f"{wanted.command} --json", 0))
        assert code == 0, (wanted, out, err)
        listed: dict[str, Any] = json.loads(out)
        (rows,) = [rows for rows in listed.values() if isinstance(rows, list)]
        assert rows, f"{wanted.command} lists nothing"
        return f"{wanted.before}{rows[0]['name']}{wanted.more}"

    async def _type(self, command: Command, typed: tuple[str, ...]) -> tuple[int, str, str]:
        async with at_terminal(self._program, *shlex.split(command.text)[1:]) as terminal:
            for seen, answer in zip(typed[::2], typed[1::2], strict=True):
                await terminal.see(seen)
                terminal.type(f"{answer}\n")
            return await terminal.ended(), terminal.screen, ""

    async def _run(self, command: Command) -> tuple[int, str, str]:
        if command.is_plain:
            program, *arguments = shlex.split(command.text)
            module = SERVER if program == "stationmaster-server" else COMMAND_LINE
            return await run(module, arguments, self._environment, seconds=_LIMIT_SECONDS, folder=self._folder)
        process = await self._start(command, stdin=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(_LIMIT_SECONDS):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def _interrupt(self, command: Command) -> None:
        """Let it say something, then press Ctrl-C: it ends in order."""
        process = await self._start(command, stdin=asyncio.subprocess.DEVNULL)
        assert process.stdout is not None
        with suppress(TimeoutError):  # what has nothing to say just goes on
            async with asyncio.timeout(3):
                await process.stdout.read(1)
        assert process.returncode in (None, 0), f"line {command.line}: {command.text} ended with {process.returncode}"
        with suppress(ProcessLookupError):  # it has ended by itself: what with is looked at below
            os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(_LIMIT_SECONDS):
            _, err = await process.communicate()
        assert process.returncode in (0, 130, -signal.SIGINT), f"line {command.line}: {command.text}\n{err.decode()}"

    async def _start(self, command: Command, stdin: int) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", f"set -o pipefail; {command.text}"),
            env=self._environment,
            cwd=self._folder,
            stdin=stdin,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )


def value_of(by_beginning: Mapping[str, Any], text: str, default: Any) -> Any:
    """What is said of a command, by its beginning."""
    return next((value for beginning, value in by_beginning.items() if _begins(text, beginning)), default)


def _begins(text: str, beginning: str) -> bool:
    """Whether a command begins so; with a `$` at the end: is that."""
    return text == beginning[:-1] if beginning.endswith("$") else text.startswith(beginning)


def _programs(folder: Path) -> Path:
    """A folder with the two programs, as an installation has them."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, module in (("stationmaster", COMMAND_LINE), ("stationmaster-server", "stationmaster_server")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o755)
    return programs
