"""The models that genai-prices knows, of the providers whose catalogue we list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from genai_prices.data_snapshot import get_snapshot

_CHAT = {"anthropic": re.compile(r"claude-"), "openai": re.compile(r"(gpt-[4-9]|o[1-9])")}
# Of no use to a turn: sound, images, embeddings, and names that only match prices.
_OTHER = re.compile(r"audio|realtime|image|transcribe|tts|search|live|whisper|computer-use|:|\.ft-|ft:|-v1$")


@lru_cache(maxsize=1)
def _known() -> dict[tuple[str, str], int]:
    models: dict[tuple[str, str], int] = {}
    for provider in get_snapshot().providers:
        chat = _CHAT.get(provider.id)
        if chat is None:
            continue
        for model in provider.models:
            if chat.match(model.id) and not _OTHER.search(model.id) and not model.deprecated:
                models[provider.id, model.id] = model.context_window or 0
    return models


def chat_models() -> Iterator[tuple[str, str, int]]:
    """Provider, model and context window (0: not known)."""
    for (provider, model), window in _known().items():
        yield provider, model, window


def context_window(provider: str, model: str) -> int:
    """Input tokens that fit at once; 0 when it is not known."""
    return _known().get((provider, model), 0)
