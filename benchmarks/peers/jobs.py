"""A peer that queues jobs: a program in the peer's own environment, which takes scenarios as `worker.py` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generator import Generator
from benchmarks.postgres import temporary_folder
from benchmarks.processes import Child, clean_environment, stop
from benchmarks.skip import Skipped

# Around the peer's class `Jobs`: the loop, and what is the same for all peers.
_FRAME = '''
import asyncio, json, statistics, sys, time

import asyncpg, uvloop

class Base:
    """Jobs begin and end in this process; what is committed is seen on a connection of its own."""

    started = None
    began = 0.0

    def noop(self):
        self.began = self.began or time.perf_counter()
        if self.started is not None:
            self.started.set()

    async def run_until(self, running, undone):
        """Jobs a second from the first job's start to the commit of the last one's end."""
        while await self.probe.fetchval(undone):
            if running.done():
                running.result()
            await asyncio.sleep(0.005)
        return time.perf_counter() - self.began

    async def one_by_one(self, url, callers, count):
        """Jobs enqueued a second, each in a call of its own, by callers that wait for the commit."""
        await self.open(url)
        left = iter(range(count))
        async def call():
            for _ in left:
                await self.enqueue()
        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return {"rate": count / (time.perf_counter() - began)}

    async def bulk(self, url, count):
        """Jobs enqueued a second, all in one call."""
        await self.open(url)
        await self.enqueue_many(10)
        began = time.perf_counter()
        await self.enqueue_many(count)
        return {"rate": count / (time.perf_counter() - began)}

    async def drain(self, url, count):
        """Jobs a second, run and committed."""
        await self.open(url)
        await self.enqueue_many(count)
        self.began = 0.0
        async with self.worker() as running:
            return {"rate": count / await self.run_until(running, self.UNDONE)}

    async def low_load(self, url, count, gap):
        """Milliseconds from before the call to the job's first line, one job at a time."""
        await self.open(url)
        self.started, took = asyncio.Event(), []
        async with self.worker():
            for _ in range(count + 5):
                await asyncio.sleep(gap)
                self.started.clear()
                began = time.perf_counter()
                await self.enqueue()
                async with asyncio.timeout(60):
                    await self.started.wait()
                took.append((time.perf_counter() - began) * 1000)
        return {"p50": statistics.median(took[5:])}
'''
_LOOP = """
async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        jobs = Jobs()
        try:
            answer = {"figures": await getattr(jobs, order.pop("scenario"))(**order)}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        finally:
            await jobs.close()
        print(json.dumps(answer), flush=True)

uvloop.run(main())
"""


@dataclass(frozen=True, slots=True)
class JobRecipe:
    """How a peer is run: its interpreter, and the text of its class `Jobs(Base)`."""

    name: str
    version: str
    python: Path
    program: str


@asynccontextmanager
async def job_peer(recipe: JobRecipe) -> AsyncIterator[Generator]:
    """The peer's process for as long as the block. Raises Skipped when it does not start."""
    with temporary_folder(recipe.name.lower()) as folder:
        (folder / "jobs.py").write_text(_FRAME + recipe.program + _LOOP)
        process = await asyncio.create_subprocess_exec(
            *(str(recipe.python), "jobs.py"),
            cwd=folder,
            env=clean_environment({}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        child = Child(process)
        try:
            async with asyncio.timeout(60):
                if (await child.line()).strip() != b"ready":
                    raise Skipped(f"{recipe.name} did not start")
            yield Generator(child)
        finally:
            await stop(process, grace=5)
