"""Encoding off the event loop, in batches that a process ends quickly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar, TypeVarTuple

from stationmaster_server.embedding.encoder import Encoder, Vector

T = TypeVar("T")
Args = TypeVarTuple("Args")

BATCH = 64
_LIMIT = timedelta(seconds=60)


class Runner(Protocol):
    """Runs a function of a module in a process of its own; see `resilience.pools.Pools.cpu`."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Raises ResourceExhausted(SERVER_OVERLOADED) when all are busy."""
        ...


class Embedder:
    """The encoder of this server."""

    def __init__(self, encoder: Encoder, run: Runner) -> None:
        self._encoder = encoder
        self._run = run

    @property
    def name(self) -> str:
        """The encoder's, to be kept beside each vector."""
        return self._encoder.name

    @property
    def unrelated(self) -> float:
        """The similarity up to which two texts have nothing to do with each other."""
        return self._encoder.unrelated

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text. Raises ResourceExhausted(SERVER_OVERLOADED), DeadlineExceeded."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            vectors += await self._run(_encode, self._encoder, batch, timeout=_LIMIT)
        return vectors


def _encode(encoder: Encoder, texts: Sequence[str]) -> list[Vector]:
    return encoder.encode(texts)
