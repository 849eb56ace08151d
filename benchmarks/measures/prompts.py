"""P1: a prompt rendered by its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.load.prompts import SERVICE
from benchmarks.measure import Measure, Side

_PROMPTS = 64


class RenderPrompt(Measure):
    """Many callers render some prompts in turn: five variables, a condition, a default."""

    id = "P1"
    title = "RenderPrompt by label, 16 callers"
    goals: ClassVar = (Goal("P1", "rate", "echo", ">=", 0.60, "calls/s"),)

    def sides(self) -> Mapping[str, Side]:
        """Echo, ours."""
        return {"echo": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """Prompts to render."""
        server, load = await self.bench.server(), await self.bench.load()
        self._made = await load.run("make_prompts", target=server.target, metadata=server.metadata, count=_PROMPTS)

    async def floor(self) -> Figures:
        """The echo of as many bytes."""
        echo = await self.bench.echo()
        return await self._run(target=echo.target, method=f"/echo.Echo/{self._made['answer_bytes']}")

    async def ours(self) -> Figures:
        """The call."""
        server = await self.bench.server()
        return await self._run(target=server.target, method=f"{SERVICE}/RenderPrompt", metadata=server.metadata)

    async def _run(self, **parameters: Any) -> Figures:
        load, seconds = await self.bench.load(), self.bench.plan.seconds
        return await load.run("unary", requests=self._made["requests"], callers=16, seconds=seconds, **parameters)
