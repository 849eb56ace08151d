"""Vectors by feature hashing: words and parts of words. It needs no model and knows no language.

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
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from stationmaster_server.embedding.encoder import DIMENSIONS, Vector

# A run of letters, or one character of a script that writes no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_GRAMS = (3, 4)
_BEGINNINGS = (4, 6)
_LONGEST = 40
"""Characters of a word that count: what is longer is no word but a key or a number."""
_FULL_WEIGHT = 7
"""Shorter words weigh less: in most languages the shortest say the least."""
_OF_BEGINNING, _OF_GRAMS = 0.7, 0.7
"""What a beginning of a word weighs, which inflection leaves alone in many languages, and all its n-grams together."""

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
    length = math.sqrt(math.fsum(each * each for each in sums))
    return [each / length for each in sums] if length else sums


@lru_cache(maxsize=50_000)
def _of_word(word: str) -> tuple[Feature, ...]:
    weight = _weight(word)
    word = word[:_LONGEST]
    grams = [
        edged[at : at + size] for edged in (f"<{word}>",) for size in _GRAMS for at in range(len(edged) - size + 1)
    ]
    features = [(f"={word}", 1.0)]
    features += [(f"^{word[:size]}", _OF_BEGINNING) for size in _BEGINNINGS if len(word) >= size]
    features += [(gram, _OF_GRAMS / math.sqrt(len(grams))) for gram in grams]
    return tuple((place, sign * weight * share) for name, share in features for place, sign in (_hashed(name),))


def _weight(word: str) -> float:
    by_length = math.pow(min(len(word), _FULL_WEIGHT) / _FULL_WEIGHT, 1.5)
    # Numbers say something. One character of an unspaced script is a word, or half of one.
    return max(by_length, 0.6) if word.isdigit() or (len(word) == 1 and word > "\u0e00") else by_length


def _hashed(feature: str) -> Feature:
    digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % DIMENSIONS, 1.0 if number & 1 else -1.0
