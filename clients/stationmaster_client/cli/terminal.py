"""Asks a person, and lets Ctrl-C through while doing so."""

from __future__ import annotations

import asyncio
import getpass
import importlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


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
