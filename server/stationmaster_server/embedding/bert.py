"""The forward pass of a BERT encoder in numpy, for one or many texts of the same padded length.

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (2018); with the mean of
the last layer's outputs as the text's vector: Reimers and Gurevych, Sentence-BERT (2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from stationmaster_server.embedding.weights import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPSILON = 1e-12
_HIDDEN = numpy.float32(-1e9)
"""Added to the attention that nobody pays to padding."""
# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: the error function to 1.5e-7.
_P = numpy.float32(0.3275911)
_A = tuple(map(numpy.float32, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)))
_HALF, _ONE = numpy.float32(0.5), numpy.float32(1)
_ROOT_HALF = numpy.float32(math.sqrt(0.5))


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        return x @ self.weight.T + self.bias


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = numpy.square(centred).mean(axis=-1, keepdims=True)
        scaled: Array = centred / numpy.sqrt(variance + numpy.float32(_EPSILON)) * self.weight + self.bias
        return scaled


class Bert:
    """An encoder of `layers` layers. Raises KeyError for a name that the weights lack."""

    def __init__(self, weights: Mapping[str, Array], layers: int, heads: int) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"]
        self._first_type = weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = _norm(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{number}", heads) for number in range(layers)]

    def vectors(self, tokens: NDArray[numpy.int64], mask: NDArray[numpy.bool_]) -> Array:
        """A vector of length 1 for each text: tokens and mask are (texts, length), the mask true where a token is."""
        x = self._norm(self._words[tokens] + self._positions[: tokens.shape[1]] + self._first_type)
        hidden = numpy.where(mask, numpy.float32(0), _HIDDEN)[:, None, None, :]
        for layer in self._layers:
            x = layer(x, hidden)
        weights = mask[:, :, None].astype(numpy.float32)
        mean = (x * weights).sum(axis=1) / weights.sum(axis=1)
        normalised: Array = mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
        return normalised


class _Layer:
    def __init__(self, weights: Mapping[str, Array], name: str, heads: int) -> None:
        self._query, self._key, self._value = (
            _dense(weights, f"{name}.attention.self.{part}") for part in ("query", "key", "value")
        )
        self._attended = _dense(weights, f"{name}.attention.output.dense")
        self._attended_norm = _norm(weights, f"{name}.attention.output.LayerNorm")
        self._wide = _dense(weights, f"{name}.intermediate.dense")
        self._narrow = _dense(weights, f"{name}.output.dense")
        self._norm = _norm(weights, f"{name}.output.LayerNorm")
        self._heads = heads

    def __call__(self, x: Array, hidden: Array) -> Array:
        x = self._attended_norm(x + self._attended(self._attention(x, hidden)))
        return self._norm(x + self._narrow(_gelu(self._wide(x))))

    def _attention(self, x: Array, hidden: Array) -> Array:
        texts, length, size = x.shape

        def split(y: Array) -> Array:
            return y.reshape(texts, length, self._heads, size // self._heads).transpose(0, 2, 1, 3)

        query, key, value = split(self._query(x)), split(self._key(x)), split(self._value(x))
        scale = numpy.float32(1 / math.sqrt(size // self._heads))
        shares = _softmax(query @ key.transpose(0, 1, 3, 2) * scale + hidden)
        return (shares @ value).transpose(0, 2, 1, 3).reshape(texts, length, size)


def _dense(weights: Mapping[str, Array], name: str) -> _Dense:
    return _Dense(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Mapping[str, Array], name: str) -> _Norm:
    return _Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _softmax(x: Array) -> Array:
    exponential: Array = numpy.exp(x - x.max(axis=-1, keepdims=True))
    exponential /= exponential.sum(axis=-1, keepdims=True)
    return exponential


def _gelu(x: Array) -> Array:
    """x times the share of a normal distribution that is below x."""
    size = numpy.abs(x) * _ROOT_HALF
    t = _ONE / (_ONE + _P * size)
    sums = t * _A[4]
    for coefficient in reversed(_A[:4]):
        sums = (sums + coefficient) * t
    above: Array = sums * numpy.exp(-size * size)
    below: Array = _HALF * x * (_ONE + numpy.copysign(_ONE - above, x))
    return below
