"""A server of embeddings that refuses a whole request for the sake of one text, as one too long for its model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from stationmaster_server.config.embedding import EmbeddingServerSettings
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.embedding.remote import RemoteEmbedder
from stationmaster_server.resilience.outbound import Outbound

from tests.resilience.site import Answer, answer, serve


class Picky:
    """What it refuses, with which status, and what it was asked."""

    def __init__(self, refused: Collection[str] = (), status: int = 400) -> None:
        self.refused = refused
        self.status = status
        self.asked: list[list[str]] = []
        self._encoder = HashingEncoder()

    def __call__(self, body: bytes) -> Answer:
        """The answer to a request."""
        texts: list[str] = json.loads(body)["input"]
        self.asked.append(texts)
        if any(word in text for word in self.refused for text in texts):
            return answer(b'{"error": "too long"}', status=self.status)
        found = [{"index": at, "embedding": one} for at, one in enumerate(self._encoder.encode(texts))]
        return answer(json.dumps({"data": found}).encode())


@asynccontextmanager
async def embedder_of(picky: Picky) -> AsyncIterator[RemoteEmbedder]:
    """What asks it, over a real connection."""
    async with serve({"/v1/embeddings": picky}) as site:
        settings = EmbeddingServerSettings(base_url=f"http://127.0.0.1:{site.port}/v1", model="small")
        made = RemoteEmbedder(settings, Outbound([f"127.0.0.1:{site.port}"]))
        try:
            yield made
        finally:
            await made.close()
