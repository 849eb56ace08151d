"""Encoding off the event loop, in batches that a process ends quickly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar, TypeVarTuple

from stationmaster_server.embedding.encoder import Encoder, Vector
from stationmaster_server.embedding.model_files import ModelFilesError
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason

T = TypeVar("T")
Args = TypeVarTuple("Args")

AT_ONCE = 16
"""Texts in one call of a process: a few seconds for the slowest encoder."""
_LIMIT = timedelta(seconds=60)


class TextRefused(FailedPrecondition):
    """One of the texts is what the encoder does not take, too long for it perhaps; or it takes none by its settings."""


class Embedder(Protocol):
    """What makes the vectors of this server. All of one name can be compared."""

    @property
    def name(self) -> str:
        """The encoder's, to be kept beside each vector."""
        ...

    @property
    def unrelated(self) -> float:
        """The similarity up to which two texts have nothing to do with each other."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text.

        Raises ResourceExhausted, Unavailable, DeadlineExceeded, which may pass; FailedPrecondition(MODEL_UNAVAILABLE),
        which is TextRefused where other texts may be embedded all the same: see `embed_each`.
        """
        ...


class Runner(Protocol):
    """Runs a function of a module in a process of its own; see `resilience.pools.Pools.cpu`."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Raises ResourceExhausted(SERVER_OVERLOADED) when all are busy."""
        ...


class LocalEmbedder:
    """An encoder that computes in this server's processes."""

    def __init__(self, encoder: Encoder, run: Runner) -> None:
        self._encoder = encoder
        self._run = run

    @property
    def name(self) -> str:
        """The encoder's."""
        return self._encoder.name

    @property
    def unrelated(self) -> float:
        """The encoder's."""
        return self._encoder.unrelated

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text. Raises as `Embedder.embed` does."""
        vectors: list[Vector] = []
        try:
            for start in range(0, len(texts), AT_ONCE):
                batch = list(texts[start : start + AT_ONCE])
                vectors += await self._run(_encode, self._encoder, batch, timeout=_LIMIT)
        except ModelFilesError as error:
            violation = PreconditionViolation("MODEL", self.name, "An operator fetches the model's files anew.")
            raise FailedPrecondition(Reason.MODEL_UNAVAILABLE, str(error), violation) from None
        return vectors


def _encode(encoder: Encoder, texts: Sequence[str]) -> list[Vector]:
    return encoder.encode(texts)
