"""Embedding many texts, of which the server may refuse some."""

from __future__ import annotations

from collections.abc import Sequence

from stationmaster_server.embedding.embedder import Embedder, TextRefused
from stationmaster_server.embedding.encoder import Vector

_HARMLESS = "text"


async def embed_each(embedder: Embedder, texts: Sequence[str]) -> list[Vector | TextRefused]:
    """A vector for each text, or why it has none: halved until those that are refused stand alone.

    Raises as `Embedder.embed` does; TextRefused where every text is refused, for then the settings are wrong.
    """
    try:
        return [*await embedder.embed(texts)]
    except TextRefused as refused:
        if len(texts) == 1:
            await embedder.embed([_HARMLESS])
            return [refused]
    half = len(texts) // 2
    return [*await embed_each(embedder, texts[:half]), *await embed_each(embedder, texts[half:])]
