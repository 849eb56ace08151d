"""Rankings of what a search found, and how several become one. Standard library only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import StrEnum
from typing import TypeAlias, TypeVar


class Mode(StrEnum):
    """By words, by meaning, or by both."""

    TEXT = "TEXT"
    MEANING = "MEANING"
    HYBRID = "HYBRID"


K = TypeVar("K", bound=Hashable)
Ranking: TypeAlias = Sequence[tuple[K, float]]
"""Keys of what was found with their scores, the best first."""

MOST_RANKED = 500
"""Of each ranking; what comes after is found by a better query."""
_RRF_K = 60
"""Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning (2009)."""


def merged(rankings: Iterable[Ranking[K]]) -> Ranking[K]:
    """Rankings whose scores mean the same, as one. What is equally good stays in its order."""
    return sorted((entry for ranking in rankings for entry in ranking), key=_best_first)


def fused(rankings: Iterable[Ranking[K]]) -> Ranking[K]:
    """Rankings whose scores mean different things, as one: what is early in several comes first."""
    scores: dict[K, float] = {}
    for ranking in rankings:
        for rank, (key, _) in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=_best_first)


def _best_first(entry: tuple[K, float]) -> float:
    return -entry[1]
