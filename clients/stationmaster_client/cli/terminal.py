"""Asks a person, and lets Ctrl-C through while doing so."""

from __future__ import annotations

import asyncio
import getpass
import importlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from stationmaster_client.cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from stationmaster_client.cli.output import Output


class Left(Exception):
    """The person pressed Ctrl-D or Ctrl-C at a question."""


def ask(question: str) -> str:
    """Read a line. Raises Left.

    It holds up the event loop, which is well: while a person thinks there is nothing else to do.
    """
    with suppress(ImportError):
        importlib.import_module("readline")  # Gives `input` editing and a history.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input(question)
    except (EOFError, KeyboardInterrupt):
        raise Left from None
    finally:
        signal.signal(signal.SIGINT, before)


def ask_secret(question: str) -> str:
    """Read a line that is not shown. Raises Left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return getpass.getpass(question)
    except (EOFError, KeyboardInterrupt):
        raise Left from None
    finally:
        signal.signal(signal.SIGINT, before)


def confirm(out: Output, losses: str) -> None:
    """Go on only if the person says so, now or by --yes. Raises CommandError."""
    if not out.interactive:
        raise CommandError(f"{losses}. Nothing was done: say --yes if that is meant")
    out.note(f"{losses}.", "yellow")
    try:
        answer = ask("Go on? [y/N] ").strip().lower()
    except Left:
        answer = ""
    if answer not in ("y", "yes"):
        raise CommandError("nothing was done", ExitCode.INTERRUPTED)


@contextmanager
def on_interrupt(react: Callable[[], None]) -> Iterator[None]:
    """Call `react` in the event loop at the first Ctrl-C inside; the second one interrupts the command."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    count = 0

    def handle(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        if count == 1:
            loop.call_soon_threadsafe(react)
        elif task is not None:
            loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
