"""Settings of what makes vectors of texts, so that they are found by meaning."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from stationmaster_server.config.types import Duration, Group


class EmbeddingProvider(StrEnum):
    """What makes vectors."""

    AUTO = "auto"
    LOCAL = "local"
    HASHING = "hashing"
    OPENAI = "openai"


class EmbeddingServerSettings(Group):
    """A server that makes vectors by OpenAI's protocol (`POST {base_url}/embeddings`), for the provider `openai`."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = "https://api.openai.com/v1"
    """Its address. It is public, or its host is in `outbound.allow`."""
    model: Annotated[str, Field(min_length=1, max_length=200)] = "text-embedding-3-small"
    """It must make vectors of 384 numbers, or be able to shorten its own to that: it is asked for so many."""
    api_key: SecretStr | None = None
    """Sent as the bearer token. In the environment: `STATIONMASTER_EMBEDDING__OPENAI__API_KEY`."""
    unrelated: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """The cosine similarity up to which this model takes two texts for unrelated: what is no nearer is not found."""
    timeout: Duration = timedelta(seconds=20)
    """How long one request may take."""


class EmbeddingSettings(Group):
    """What makes vectors of tasks, messages and documents. Give all servers of an installation the same."""

    provider: EmbeddingProvider = EmbeddingProvider.AUTO
    """`local`: the model all-MiniLM-L6-v2, whose files `stationmaster-server models fetch` gets. `hashing`: words and
    parts of words; it knows no synonyms. `openai`: a server elsewhere, which is sent the texts. `auto`: `local` if the
    model's files are there, else `hashing`.
    """
    model_folder: Path | None = None
    """Where the model's files are. Absent: `models/all-minilm-l6-v2` in the data folder."""
    openai: EmbeddingServerSettings = EmbeddingServerSettings()
