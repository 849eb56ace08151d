"""What a measure is: its goals and the sides that are run in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from benchmarks.bench import Bench
from benchmarks.goals import Figures, Goal

Side = Callable[[], Awaitable[Figures]]


class Measure(ABC):
    """One line of the table of goals (or several that the same runs answer)."""

    id: ClassVar[str]
    title: ClassVar[str]
    goals: ClassVar[tuple[Goal, ...]]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    @abstractmethod
    def sides(self) -> Mapping[str, Side]:
        """What runs in each round, in this order: the floor, ours, the peer. The names are those of the goals."""

    async def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Before the first round: whatever is not to be measured."""

    async def close(self) -> None:  # noqa: B027
        """After the last round, however it went."""
