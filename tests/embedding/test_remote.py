"""Vectors by a server that speaks OpenAI's protocol, against a real server over a real connection."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from stationmaster_server.config.embedding import EmbeddingServerSettings
from stationmaster_server.embedding.encoder import DIMENSIONS
from stationmaster_server.embedding.remote import RemoteEmbedder
from stationmaster_server.errors import FailedPrecondition, Reason, Unavailable
from stationmaster_server.resilience.outbound import Outbound

from tests.resilience.site import Answer, Site, answer, serve

PATH = "/v1/embeddings"


def vectors(*numbers: Sequence[float], order: Sequence[int] = ()) -> Answer:
    """What such a server answers; `order`: which comes where."""
    data: list[dict[str, Any]] = [{"index": at, "embedding": list(one)} for at, one in enumerate(numbers)]
    return answer(json.dumps({"data": [data[at] for at in order] if order else data}).encode())


def pointing(place: int, length: float = 1.0) -> list[float]:
    return [length if at == place else 0.0 for at in range(DIMENSIONS)]


@asynccontextmanager
async def embedder(reply: Answer, *, allowed: bool = True) -> AsyncIterator[tuple[RemoteEmbedder, Site]]:
    async with serve({PATH: reply}) as site:
        settings = EmbeddingServerSettings(
            base_url=f"http://127.0.0.1:{site.port}/v1/", model="small", api_key=SecretStr("sk-secret")
        )
        made = RemoteEmbedder(settings, Outbound([f"127.0.0.1:{site.port}"] if allowed else ()))
        try:
            yield made, site
        finally:
            await made.close()


async def test_texts_are_sent_and_vectors_come_back_in_their_order_and_of_length_one() -> None:
    reply = vectors(pointing(3, 2.0), pointing(5), order=(1, 0))
    async with embedder(reply) as (made, site):
        assert await made.embed(["one", "  ", "two\ud800"]) == [pointing(3), [0.0] * DIMENSIONS, pointing(5)]
        ((path, headers, body),) = site.requests
        assert (path, headers["authorization"]) == (PATH, "Bearer sk-secret")
        assert json.loads(body) == {
            "model": "small",
            "input": ["one", "two?"],
            "dimensions": 384,
            "encoding_format": "float",
        }
        assert made.name == f"small@127.0.0.1:{site.port}"


async def test_many_texts_are_many_requests_over_one_connection() -> None:
    async with embedder(vectors(*[pointing(1)] * 64)) as (made, site):
        assert await made.embed(["x" * 10_000] * 128) == [pointing(1)] * 128
        assert (len(site.requests), site.connections) == (2, 1)
        assert {len(text) for text in json.loads(site.requests[0][2])["input"]} == {8000}


async def test_a_private_address_is_refused_unless_it_is_allowed() -> None:
    async with embedder(vectors(pointing(1)), allowed=False) as (made, site):
        with pytest.raises(FailedPrecondition, match=r"outbound\.allow") as refused:
            await made.embed(["one"])
        assert refused.value.reason is Reason.ADDRESS_REFUSED
        assert site.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_is_away_is_asked_again_and_then_told_of(status: int) -> None:
    async with embedder(answer(b"later", status=status)) as (made, site):
        with pytest.raises(Unavailable, match=f"answered {status}") as told:
            await made.embed(["one"])
        assert told.value.retry_after.total_seconds() > 0
        assert len(site.requests) == 3


async def test_a_server_that_keeps_being_away_is_left_alone_for_a_while() -> None:
    async with embedder(answer(b"", status=503)) as (made, site):
        for _ in range(5):
            with pytest.raises(Unavailable):
                await made.embed(["one"])
        asked = len(site.requests)
        with pytest.raises(Unavailable, match="the embedding server"):
            await made.embed(["one"])
        assert len(site.requests) == asked


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (answer(b"who?", status=401), "embedding.openai.api_key"),
        (answer(b"no", status=404), "answered 404 to the model 'small'"),
        (answer(b"<html>"), "no list of vectors"),
        (answer(b'{"data": [{"index": 0}]}'), "no list of vectors"),
        (vectors(), "0 vectors for 1 texts"),
        (vectors([1.0] * 1536), "vectors of 1536 numbers"),
        (vectors([math.nan] * DIMENSIONS), "no list of vectors"),
    ],
)
async def test_what_is_wrong_with_the_settings_is_told_and_not_tried_again(reply: Answer, what: str) -> None:
    async with embedder(reply) as (made, site):
        with pytest.raises(FailedPrecondition, match=what) as told:
            await made.embed(["one"])
        assert told.value.reason is Reason.MODEL_UNAVAILABLE
        assert "sk-secret" not in str(told.value)
        assert len(site.requests) == 1
