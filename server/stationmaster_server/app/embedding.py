"""What makes vectors on this server, chosen by the settings; and what `doctor` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import structlog

from stationmaster_server.app.findings import Finding, Verdict
from stationmaster_server.app.models import INSTALL, lacking_packages, model_folder
from stationmaster_server.config import Settings, SettingsError
from stationmaster_server.config.embedding import EmbeddingProvider
from stationmaster_server.embedding.embedder import Embedder, LocalEmbedder
from stationmaster_server.embedding.encoder import Encoder
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.embedding.minilm import MiniLmEncoder
from stationmaster_server.embedding.model_files import MODEL, ModelFilesError, present, verify
from stationmaster_server.embedding.remote import RemoteEmbedder
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.pools import Pools

_SUBJECT = "embedding"
_FETCH = "stationmaster-server models fetch"
_log = structlog.get_logger(__name__)


def build_embedder(stack: AsyncExitStack, settings: Settings, pools: Pools, outbound: Outbound) -> Embedder:
    """Make it. Raises SettingsError when the model that is wanted is not there."""
    if settings.embedding.provider is EmbeddingProvider.OPENAI:
        remote = RemoteEmbedder(settings.embedding.openai, outbound)
        stack.push_async_callback(remote.close)
        return remote
    return LocalEmbedder(_encoder(settings), pools.cpu)


def _encoder(settings: Settings) -> Encoder:
    provider, lacks = settings.embedding.provider, lacking(settings)
    check_encoder(settings)
    if provider is EmbeddingProvider.HASHING or (lacks and provider is EmbeddingProvider.AUTO):
        if lacks and provider is EmbeddingProvider.AUTO:
            _log.debug("search by meaning knows words and parts of words, and no synonyms", why=lacks)
        return HashingEncoder()
    return MiniLmEncoder(model_folder(settings))


def check_encoder(settings: Settings) -> None:
    """Raises SettingsError when the local model is wanted and cannot be used."""
    if settings.embedding.provider is EmbeddingProvider.LOCAL and (lacks := lacking(settings)):
        raise SettingsError(f"setting embedding.provider: it is local, but {lacks}")


def lacking(settings: Settings) -> str:
    """Why the local model cannot be used, and what to do; empty: it can."""
    folder = model_folder(settings)
    if not present(folder):
        return f"the files of {MODEL} are not in {folder}: {_FETCH}"
    if packages := lacking_packages():
        return f"packages are missing ({', '.join(packages)}): {INSTALL}"
    return ""


def embedding(settings: Settings) -> Iterator[Finding]:
    """What things are found by meaning with."""
    provider, remote = settings.embedding.provider, settings.embedding.openai
    if provider is EmbeddingProvider.OPENAI:
        text = f"texts are sent to {remote.base_url} for {remote.model}"
        keyless = remote.api_key is None and remote.base_url.startswith("https://api.openai.com/")
        lacks = ": embedding.openai.api_key is missing" if keyless else ""
        yield Finding(Verdict.FAIL if lacks else Verdict.OK, _SUBJECT, f"{text}{lacks}")
        return
    lacks = lacking(settings)
    if provider is EmbeddingProvider.HASHING:
        yield Finding(Verdict.OK, _SUBJECT, "by words and parts of words, without synonyms, as embedding.provider says")
    elif lacks and provider is EmbeddingProvider.LOCAL:
        yield Finding(Verdict.FAIL, _SUBJECT, f"embedding.provider is local, but {lacks}")
    elif lacks:
        text = "only the hashing encoder is there: search by meaning knows words and parts of words, and no synonyms"
        yield Finding(Verdict.WARN, _SUBJECT, f"{text}; {lacks}")
    else:
        yield _verified(settings)


def _verified(settings: Settings) -> Finding:
    try:
        verify(model_folder(settings))
    except ModelFilesError as error:
        return Finding(Verdict.FAIL, _SUBJECT, str(error))
    return Finding(Verdict.OK, _SUBJECT, f"the model {MODEL} in {model_folder(settings)}")
