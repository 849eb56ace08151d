"""Vectors by a server that speaks OpenAI's protocol: `POST {base_url}/embeddings`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stationmaster_server.config.embedding import EmbeddingServerSettings
from stationmaster_server.embedding.embedder import TextRefused
from stationmaster_server.embedding.encoder import DIMENSIONS, Vector
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason, Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker
from stationmaster_server.resilience.outbound import Outbound

_AT_ONCE = 64
_MOST_CHARACTERS = 8_000
"""Of a text: in the densest script about as many tokens as these models take."""
_MOST_BYTES = 16 * 1024 * 1024
_ATTEMPTS = 3
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSING = frozenset({400, 413, 422})
"""What servers say to texts that are too long, to many at once, and to settings that they do not know."""
_LATER = timedelta(seconds=10)


class RemoteEmbedder:
    """`close` it."""

    def __init__(self, settings: EmbeddingServerSettings, outbound: Outbound) -> None:
        self._settings = settings
        self._outbound = outbound
        self._url = f"{settings.base_url.rstrip('/')}/embeddings"
        self._host = httpx2.URL(self._url).netloc.decode()
        self._breaker = CircuitBreaker(
            f"the embedding server {self._host}",
            reason=Reason.MODEL_UNAVAILABLE,
            counts=lambda error: isinstance(error, Unavailable),
            told=str,
        )

    @property
    def name(self) -> str:
        """The model and its server: another of either makes other vectors."""
        return f"{self._settings.model}@{self._host}"

    @property
    def unrelated(self) -> float:
        """As the settings say."""
        return self._settings.unrelated

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text. Raises Unavailable, FailedPrecondition(MODEL_UNAVAILABLE, ADDRESS_REFUSED)."""
        vectors: list[Vector] = [[0.0] * DIMENSIONS] * len(texts)
        said = [place for place, text in enumerate(texts) if text.strip()]
        for start in range(0, len(said), _AT_ONCE):
            places = said[start : start + _AT_ONCE]
            batch = [_sendable(texts[place]) for place in places]
            for place, vector in zip(places, await self._batch(batch), strict=True):
                vectors[place] = vector
        return vectors

    async def close(self) -> None:
        """Close its connections."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        key = self._settings.api_key
        headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        timeout = httpx2.Timeout(self._settings.timeout.total_seconds())
        return self._outbound.client(timeout=timeout, headers=headers, max_response_bytes=_MOST_BYTES)

    async def _batch(self, texts: Sequence[str]) -> list[Vector]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.3, max=3),
            reraise=True,
        )
        return await self._breaker.call(lambda: retrying(self._asked, texts))

    async def _asked(self, texts: Sequence[str]) -> list[Vector]:
        body = {"model": self._settings.model, "input": texts, "dimensions": DIMENSIONS, "encoding_format": "float"}
        try:
            answer = await self._client.post(self._url, json=body)
        except httpx2.HTTPError as error:
            text = f"the embedding server {self._host} did not answer: {str(error) or type(error).__name__}"
            raise Unavailable(Reason.MODEL_UNAVAILABLE, text, retry_after=_LATER) from error
        if answer.status_code in _TRANSIENT:
            text = f"the embedding server {self._host} answered {answer.status_code}"
            raise Unavailable(Reason.MODEL_UNAVAILABLE, text, retry_after=_LATER)
        if answer.status_code in _REFUSING:
            raise self._refused(answer.status_code, texts)
        if not answer.is_success:
            what = "look at embedding.openai.api_key" if answer.status_code in (401, 403) else "look at the settings"
            raise self._wrong(f"answered {answer.status_code} to the model {self._settings.model!r}: {what}")
        return self._vectors(answer, len(texts))

    def _vectors(self, answer: httpx2.Response, count: int) -> list[Vector]:
        try:
            entries = sorted(answer.json()["data"], key=lambda entry: entry["index"])
            vectors = [_of_length_one(entry["embedding"]) for entry in entries]
        except (ValueError, TypeError, KeyError) as error:
            raise self._wrong(f"answered what is no list of vectors ({type(error).__name__})") from None
        if len(vectors) != count:
            raise self._wrong(f"answered {len(vectors)} vectors for {count} texts")
        for vector in vectors:
            if len(vector) != DIMENSIONS:
                text = f"made vectors of {len(vector)} numbers with the model {self._settings.model!r}; {DIMENSIONS}"
                raise self._wrong(f"{text} are needed: choose a model that makes so many, or can shorten its own")
        return vectors

    def _refused(self, status: int, texts: Sequence[str]) -> TextRefused:
        of = "a text" if len(texts) == 1 else f"{len(texts)} texts"
        what = f"answered {status} to {of} of up to {max(map(len, texts)):,} characters for the model"
        text = f"the embedding server {self._host} {what} {self._settings.model!r}: shorten what is too long for it,"
        advice = "or look at the settings [embedding.openai]"
        return TextRefused(Reason.MODEL_UNAVAILABLE, f"{text} {advice}", self._violation())

    def _wrong(self, what: str) -> FailedPrecondition:
        return FailedPrecondition(
            Reason.MODEL_UNAVAILABLE, f"the embedding server {self._host} {what} [embedding.openai]", self._violation()
        )

    def _violation(self) -> PreconditionViolation:
        return PreconditionViolation("MODEL", self.name, "An operator looks at the settings [embedding.openai].")


def _sendable(text: str) -> str:
    return text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()


def _of_length_one(numbers: Any) -> Vector:
    vector = [float(number) for number in numbers]
    length = math.hypot(*vector)
    if not math.isfinite(length):
        raise ValueError("a vector has numbers that are none")
    return [number / length for number in vector] if length else vector
