"""F1: a gibibyte up and down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.measure import Measure, Side

_MIB = 1024


class Transfer(Measure):
    """Over one connection, in pieces of a mebibyte, to a disk and from it."""

    id = "F1"
    title = "UploadFile, DownloadFile of 1 GiB"
    goals: ClassVar = (
        Goal("F1.up", "up", "chunk stream", ">=", 0.7, "MiB/s", "UploadFile of 1 GiB"),
        Goal("F1.down", "down", "chunk stream", ">=", 0.7, "MiB/s", "DownloadFile of 1 GiB"),
    )

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"chunk stream": self.floor, OURS: self.ours}

    async def floor(self) -> Figures:
        """Bytes to and from a file."""
        floor, load = await self.bench.files(), await self.bench.load()
        return await load.run("floor_files", target=floor.target, mib=self.bench.plan.count(_MIB, least=16))

    async def ours(self) -> Figures:
        """With quota, checksum and audit, put aside and then in its place."""
        server, load = await self.bench.server(), await self.bench.load()
        count = self.bench.plan.count(_MIB, least=16)
        return await load.run("our_files", target=server.target, mib=count, metadata=server.metadata)
