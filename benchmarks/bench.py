"""What the measures share: servers, floors, peers and load processes, each started when it is first asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from benchmarks.floors.run import Floor, floor
from benchmarks.generator import Generator, generator
from benchmarks.peers import adk, agno, langgraph, pgqueuer, procrastinate
from benchmarks.peers.jobs import JobRecipe, job_peer
from benchmarks.peers.server import PeerServer, Recipe, peer_server
from benchmarks.postgres import Postgres, postgres, temporary_folder
from benchmarks.servers import Server, our_server
from benchmarks.skip import Skipped

T = TypeVar("T")
_RECIPES: dict[str, Callable[[], Awaitable[Recipe]]] = {
    "agno": agno.recipe,
    "adk": adk.recipe,
    "langgraph": langgraph.recipe,
}
_JOB_RECIPES: dict[str, Callable[[], Awaitable[JobRecipe]]] = {
    "pgqueuer": pgqueuer.recipe,
    "procrastinate": procrastinate.recipe,
}
PEERS = (*_RECIPES, *_JOB_RECIPES)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and beside whom."""

    rounds: int = 5
    seconds: float = 2.0
    """Of each timed run."""
    scale: float = 1.0
    """Of everything that is counted rather than timed (idle streams, sessions, messages)."""
    peers: bool = True

    def count(self, full: int, least: int = 1) -> int:
        """So many of `full` as this run takes."""
        return max(least, round(full * self.scale))


@dataclass
class Bench:
    """One run. `async with Bench(plan)`; what was started ends with it."""

    plan: Plan
    versions: dict[str, str] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _made: dict[str, Any] = field(default_factory=dict)
    _recipes: dict[str, Recipe | JobRecipe | Skipped] = field(default_factory=dict)

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _once(self, name: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._made:
            self._made[name] = await self._stack.enter_async_context(make())
        return cast("T", self._made[name])

    async def load(self, number: int = 1) -> Generator:
        """A load process; the second one is for measures that need two."""
        return await self._once(f"load {number}", generator)

    async def server(self) -> Server:
        """Our server, shared by all measures that need not have a fresh one."""
        return await self._once("server", our_server)

    async def server_without_tree(self) -> Server:
        """Our server, which leaves the events of the audit trail in their queue."""
        without = {"STATIONMASTER_AUDIT__SEQUENCE": "false"}
        return await self._once("server without tree", lambda: our_server(environment=without))

    async def echo(self) -> Floor:
        """The echo."""
        return await self._once("echo", lambda: floor("benchmarks.floors.echo"))

    async def files(self) -> Floor:
        """The floor of files, on the disk where our server's data is."""
        folder = self._stack.enter_context(temporary_folder("files")) if "files" not in self._made else ""
        return await self._once("files", lambda: floor("benchmarks.floors.files", f"{folder}/file"))

    async def raw(self) -> Floor:
        """The raw floor of conversations."""
        folder = self._stack.enter_context(temporary_folder("raw")) if "raw" not in self._made else ""
        return await self._once("raw", lambda: floor("benchmarks.floors.raw", f"{folder}/raw.db"))

    async def postgres(self) -> Postgres:
        """PostgreSQL for floors and twins."""
        return await self._once("postgres", postgres)

    async def twin(self) -> Floor:
        """The ORM twin."""
        url = await (await self.postgres()).database("twin")
        url = url.replace("postgresql://", "postgresql+asyncpg://")
        return await self._once("twin", lambda: floor("benchmarks.twins.orm", url))

    async def find(self, name: str) -> Recipe | JobRecipe:
        """A peer, installed. Raises Skipped."""
        if not self.plan.peers:
            raise Skipped("peers were not asked for")
        if name not in self._recipes:
            try:
                make = _RECIPES[name] if name in _RECIPES else _JOB_RECIPES[name]
                self._recipes[name] = found = await make()
                self.versions[found.name] = found.version
            except Skipped as why:
                self._recipes[name] = why
        recipe = self._recipes[name]
        if isinstance(recipe, Skipped):
            raise recipe
        return recipe

    async def recipe(self, name: str) -> Recipe:
        """How a peer's server is run. Raises Skipped."""
        recipe = await self.find(name)
        assert isinstance(recipe, Recipe)
        return recipe

    async def peer(self, name: str) -> PeerServer:
        """A peer's server, shared. Raises Skipped."""
        recipe = await self.recipe(name)
        return await self._once(name, lambda: peer_server(recipe))

    async def job_peer(self, name: str) -> Generator:
        """The process of a peer that queues jobs, shared. Raises Skipped."""
        recipe = await self.find(name)
        assert isinstance(recipe, JobRecipe)
        return await self._once(name, lambda: job_peer(recipe))
