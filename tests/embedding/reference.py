"""The same model computed as plainly as possible: one text, one head, 64-bit numbers, no padding, tokens by hand."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy
from safetensors import safe_open

# numpy's own types would say less than the names do.
Matrix = Any


def reference_vector(folder: Path, text: str) -> list[float]:
    """The vector of a text of plain words."""
    weights = _weights(folder)
    tokens = _tokens(folder, text)
    x: Matrix = numpy.array(
        [
            weights["embeddings.word_embeddings.weight"][token]
            + weights["embeddings.position_embeddings.weight"][place]
            + weights["embeddings.token_type_embeddings.weight"][0]
            for place, token in enumerate(tokens)
        ]
    )
    x = _norm(weights, "embeddings.LayerNorm", x)
    for number in range(6):
        x = _layer(weights, f"encoder.layer.{number}.", x)
    mean = x.mean(axis=0)
    length = math.sqrt(sum(each * each for each in mean))
    return [float(each / length) for each in mean]


def _layer(weights: dict[str, Matrix], name: str, x: Matrix) -> Matrix:
    heads = []
    for head in range(12):
        part = slice(32 * head, 32 * head + 32)
        query, key, value = (_dense(weights, f"{name}attention.self.{each}", x)[:, part] for each in _SELF)
        rows = []
        for each in query:
            scores = [float(each @ other) / math.sqrt(32) for other in key]
            shares = [math.exp(score) for score in scores]
            rows.append(sum(share * one for share, one in zip(shares, value, strict=True)) / sum(shares))
        heads.append(numpy.array(rows))
    attended = _dense(weights, f"{name}attention.output.dense", numpy.concatenate(heads, axis=1))
    x = _norm(weights, f"{name}attention.output.LayerNorm", x + attended)
    wide = numpy.vectorize(_gelu)(_dense(weights, f"{name}intermediate.dense", x))
    return _norm(weights, f"{name}output.LayerNorm", x + _dense(weights, f"{name}output.dense", wide))


_SELF = ("query", "key", "value")


def _gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def _dense(weights: dict[str, Matrix], name: str, x: Matrix) -> Matrix:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: dict[str, Matrix], name: str, x: Matrix) -> Matrix:
    rows = [(row - row.mean()) / math.sqrt(row.var() + 1e-12) for row in x]
    return numpy.array(rows) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _weights(folder: Path) -> dict[str, Matrix]:
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        names = [name for name in file.keys() if name != "embeddings.position_ids"]  # noqa: SIM118 - it is no mapping
        return {name: file.get_tensor(name).astype(numpy.float64) for name in names}


def _tokens(folder: Path, text: str) -> list[int]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    tokens = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", plain):
        start = 0
        while start < len(word):
            end = len(word)
            while ("##" if start else "") + word[start:end] not in vocabulary:
                end -= 1
            tokens.append(vocabulary[("##" if start else "") + word[start:end]])
            start = end
    return [*tokens, vocabulary["[SEP]"]]
