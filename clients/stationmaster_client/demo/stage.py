"""What every act of the demo has: where to tell, whom to call, and a list of what was proven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stationmaster_client.client import Client
from stationmaster_client.demo.server import LOOK_EVERY_SECONDS, DemoFailure

PATIENCE_SECONDS = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """One promise and whether it was kept."""

    promise: str
    kept: bool
    detail: str


class Programme:
    """What was shown of each service, in the order in which it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._checks: list[tuple[str, Check]] = []

    def act(self, title: str) -> None:
        """Announce what comes."""
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left", style="dim")

    def fact(self, text: str) -> None:
        """Tell something on the way."""
        self._console.print(f"  {text}", style="dim", soft_wrap=True)

    def check(self, service: str, promise: str, kept: bool, detail: str) -> None:
        """Keep the outcome of a check, and tell it."""
        check = Check(promise, kept, detail)
        self._checks.append((service, check))
        self._console.print(Text("  ").join([_mark(check) + Text(promise), Text(detail, "dim")]))

    def shown(self, service: str) -> int:
        """How many checks there were of a service."""
        return sum(name == service for name, _ in self._checks)

    @property
    def kept(self) -> bool:
        """Whether every promise was, and there were any."""
        return bool(self._checks) and all(check.kept for _, check in self._checks)

    def table(self) -> Table:
        """All of it."""
        services = dict.fromkeys(service for service, _ in self._checks)
        table = Table("", "service", "what was shown", "what was found", box=None, header_style="bold", pad_edge=False)
        for service in services:
            of_one = [check for name, check in self._checks if name == service]
            for place, check in enumerate(of_one):
                table.add_row(_mark(check), "" if place else service, check.promise, Text(check.detail, "dim"))
        return table


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an act is played."""

    client: Client
    folder: Path
    """The server's data folder, which no client of a server elsewhere could see."""
    session: str
    """The session of the conversation."""
    agent: str
    pid: int
    """The server's process since it was killed."""
    has_model: bool
    """Whether the server searches by meaning."""
    programme: Programme = field(repr=False)


async def some(look: Callable[[], AsyncIterable[T]], what: str) -> list[T]:
    """What there is, as soon as there is any. Raises DemoFailure when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := [each async for each in look()]):  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(LOOK_EVERY_SECONDS)
            return found
    except TimeoutError:
        raise DemoFailure(f"{what} did not come within {PATIENCE_SECONDS:.0f} s") from None


def _mark(check: Check) -> Text:
    return Text("✓ ", "bold green") if check.kept else Text("✗ ", "bold red")
