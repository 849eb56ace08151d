"""Vectors by all-MiniLM-L6-v2, a small model of what English sentences mean; `car` is near `automobile`.

The model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). Its files are fetched by
`stationmaster-server models fetch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stationmaster_server.embedding.encoder import DIMENSIONS, Vector
from stationmaster_server.embedding.model_files import CONFIG, TOKENIZER, WEIGHTS, verify

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from stationmaster_server.embedding.bert import Bert

MAX_TOKENS = 256
"""Of a text, with the two that mark its ends; what comes after says nothing to the model."""
_MOST_CHARACTERS = 20_000
"""Of a text that are looked at: far more than so many tokens."""
_TOKENS_AT_ONCE = 2_048
"""Of the texts that are computed together, padding included: it bounds memory, and what fits the cache is faster."""


class MiniLmEncoder:
    """The encoder in a folder; it is pickled as its path, and loaded once in each process."""

    name = "minilm-l6-v2-1"
    unrelated = 0.15

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text. Raises OSError, ModelFilesError when the files are not what they should be."""
        model = _loaded(self._folder)
        return model.encode(texts)


class _Model:
    def __init__(self, tokenizer: Tokenizer, bert: Bert) -> None:
        self._tokenizer = tokenizer
        self._bert = bert

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        import numpy

        encodings = [self._tokenizer.encode(_encodable(text[:_MOST_CHARACTERS])) for text in texts]
        vectors: list[Vector] = [[0.0] * DIMENSIONS] * len(texts)
        for places in _batches([len(encoding.ids) for encoding in encodings]):
            chosen = [encodings[place] for place in places]
            tokens, mask = _padded(chosen)
            made = self._bert.vectors(numpy.array(tokens), numpy.array(mask))
            for place, encoding, vector in zip(places, chosen, made, strict=True):
                # Nothing but the marks of its ends: nothing is said.
                vectors[place] = vector.tolist() if len(encoding.ids) > 2 else [0.0] * DIMENSIONS
        return vectors


def _encodable(text: str) -> str:
    """Halves of characters, which no tokenizer knows, become question marks."""
    return text.encode("utf-8", "replace").decode()


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts that are computed together: of like length, so that little is padding."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _padded(encodings: Sequence[Encoding]) -> tuple[list[list[int]], list[list[bool]]]:
    longest = max(len(encoding.ids) for encoding in encodings)
    lacking = [longest - len(encoding.ids) for encoding in encodings]
    tokens = [[*encoding.ids, *[0] * lack] for encoding, lack in zip(encodings, lacking, strict=True)]
    mask = [[True] * (longest - lack) + [False] * lack for lack in lacking]
    return tokens, mask


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> _Model:
    verify(folder)
    # A process of the pool computes on one core, and has no memory for buffers of many threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tokenizers import Tokenizer

    from stationmaster_server.embedding.bert import Bert
    from stationmaster_server.embedding.weights import read_weights

    config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    weights = read_weights(folder / WEIGHTS)
    return _Model(tokenizer, Bert(weights, config["num_hidden_layers"], config["num_attention_heads"]))
