"""An embedder for tests that need one and do not care: it computes at once, in this process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, TypeVarTuple

from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.embedding.encoder import Encoder
from stationmaster_server.embedding.hashing import HashingEncoder

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def _run(function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
    return function(*args)


def embedder_here(encoder: Encoder | None = None) -> LocalEmbedder:
    """By hashing, unless an encoder is given."""
    return LocalEmbedder(encoder or HashingEncoder(), _run)
