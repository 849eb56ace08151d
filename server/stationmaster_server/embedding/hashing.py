"""Vectors by feature hashing: words, pairs of words, and pieces of words. It needs no model and knows no language.

Texts are near each other when they share words, or parts of words (inflected, compounded, misspelt). It does not know
that `car` and `automobile` mean the same.

The signs: Weinberger et al., Feature Hashing for Large Scale Multitask Learning (2009). The n-grams with the edges of
words: Bojanowski et al., Enriching Word Vectors with Subword Information (2017).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

from stationmaster_server.embedding.encoder import DIMENSIONS, Vector

# A run of letters, or one character of a script that writes no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_GRAMS = (3, 4, 5)
_LONGEST = 40
"""Characters of a word that count: what is longer is no word but a key or a number."""
_FULL_WEIGHT = 6
"""Shorter words weigh less: in most languages the shortest say the least."""
_OF_GRAMS, _OF_PAIRS = 0.7, 0.4
"""What all n-grams of a word weigh together, and a pair of words, beside a word."""

Feature = tuple[int, float]


class HashingEncoder:
    """The encoder that is always there."""

    name = "hashing-1"
    unrelated = 0.12

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        return [_vector(text) for text in texts]


def _vector(text: str) -> Vector:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    sums = [0.0] * DIMENSIONS
    for word, count in Counter(words).items():
        often = 1 + math.log(count)
        for place, weight in _of_word(word):
            sums[place] += often * weight
    for (left, right), count in Counter(pairwise(words)).items():
        place, sign = _hashed(f"{left} {right}")
        sums[place] += sign * _OF_PAIRS * (1 + math.log(count)) * min(_weight(left), _weight(right))
    length = math.sqrt(math.fsum(each * each for each in sums))
    return [each / length for each in sums] if length else sums


@lru_cache(maxsize=50_000)
def _of_word(word: str) -> tuple[Feature, ...]:
    weight = _weight(word)
    place, sign = _hashed(word)
    features = [(place, sign * weight)]
    grams = list(_grams(word[:_LONGEST]))
    for gram in grams:
        place, sign = _hashed(gram)
        features.append((place, sign * weight * _OF_GRAMS / math.sqrt(len(grams))))
    return tuple(features)


def _weight(word: str) -> float:
    # One character of an unspaced script is a word, or half of one.
    return 0.6 if len(word) == 1 and word > "\u0e00" else min(len(word), _FULL_WEIGHT) / _FULL_WEIGHT


def _grams(word: str) -> Iterator[str]:
    edged = f"<{word}>"
    for size in _GRAMS:
        if len(edged) > size:
            yield from (edged[at : at + size] for at in range(len(edged) - size + 1))


def _hashed(feature: str) -> Feature:
    digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % DIMENSIONS, 1.0 if number & 1 else -1.0
