"""The load of W1 to W3: what is counted has happened."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stationmaster_server.db.engine import Database

from benchmarks.floors import work as floor
from benchmarks.generator import LoadFailed
from benchmarks.load import work
from benchmarks.peers.jobs import JobRecipe, job_peer

_ONE_PER_COLUMN = "SELECT state, count(*) FROM work_items GROUP BY state"

PEER = """
class Jobs(Base):
    UNDONE = "no query"
    left = 0

    async def open(self, url):
        if url == "wrong":
            raise ConnectionError("nobody is there")
        self.probe = self

    async def fetchval(self, query):
        return self.left > 0

    async def enqueue(self):
        self.left += 1

    async def enqueue_many(self, count):
        self.left += count

    def worker(self):
        return self

    async def __aenter__(self):
        async def work():
            while True:
                while self.left:
                    self.noop()
                    self.left -= 1
                await asyncio.sleep(0)
        self.running = asyncio.create_task(work())
        return self.running

    async def __aexit__(self, *_):
        self.running.cancel()

    async def close(self):
        pass
"""


async def states(database: Database) -> dict[str, int]:
    """How many items are how."""
    async with database.system(autocommit=True) as tx:
        return {row["state"]: row["count"] for row in await tx.fetch(_ONE_PER_COLUMN)}


async def test_all_that_is_drained_has_succeeded(database: Database, database_url: str) -> None:
    assert (await work.work_drain(url=database_url, count=300))["rate"] > 0
    assert await states(database) == {"SUCCEEDED": 300}


async def test_all_that_is_submitted_is_in_the_queue(database: Database, database_url: str) -> None:
    assert (await work.work_one_by_one(url=database_url, callers=4, count=50))["rate"] > 0
    assert await states(database) == {"QUEUED": 50}
    assert (await work.work_bulk(url=database_url, count=50))["rate"] > 0
    assert await states(database) == {"QUEUED": 60}  # ten to warm up


async def test_what_is_started_was_submitted(database: Database, database_url: str) -> None:
    assert (await work.work_low_load(url=database_url, count=5, gap=0.001))["p50"] > 0
    assert await states(database) == {"SUCCEEDED": 10}


async def test_the_floor_runs(database_url: str) -> None:
    for figures in (
        await floor.floor_bulk(url=database_url, count=50),
        await floor.floor_one_by_one(url=database_url, callers=2, count=10),
        await floor.floor_drain(url=database_url, count=250),
        await floor.floor_low_load(url=database_url, count=3, gap=0.001),
    ):
        assert all(value > 0 for value in figures.values())


async def test_a_peer_runs_every_scenario_and_tells_its_errors() -> None:
    async with job_peer(JobRecipe("Peer", "1", Path(sys.executable), PEER)) as peer:
        for scenario, parameters in (
            ("one_by_one", {"callers": 2, "count": 10}),
            ("bulk", {"count": 10}),
            ("drain", {"count": 10}),
        ):
            assert (await peer.run(scenario, url="", **parameters))["rate"] > 0
        assert (await peer.run("low_load", url="", count=2, gap=0.001))["p50"] > 0
        with pytest.raises(LoadFailed, match="bulk: ConnectionError: nobody is there"):
            await peer.run("bulk", url="wrong", count=1)
