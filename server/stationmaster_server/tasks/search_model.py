"""What a search through tasks and documents is asked, and what it finds. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from stationmaster_server.tasks.model import Task


class Mode(StrEnum):
    """By words, by meaning, or by both."""

    TEXT = "TEXT"
    MEANING = "MEANING"
    HYBRID = "HYBRID"


class Target(StrEnum):
    """What is searched through."""

    TASKS = "TASKS"
    DOCUMENTS = "DOCUMENTS"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document."""

    document_id: UUID
    number: int
    user_id: UUID
    source: str
    title: str
    headings: tuple[str, ...]
    text: str
    start: int
    execution_id: UUID
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """What was found, how well, and a piece of its text with the matches marked."""

    found: Task | Passage
    score: float
    snippet: str


Key = tuple[str, str | UUID, int]
"""What is ranked: its target; the task's id, or the document's with the number of the piece."""
Ranking = Sequence[tuple[Key, float]]
"""The best first."""

_RRF_K = 60
"""Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning (2009)."""


def merged(rankings: Iterable[Ranking]) -> Ranking:
    """Rankings whose scores mean the same, as one."""
    return sorted((entry for ranking in rankings for entry in ranking), key=_best_first)


def fused(rankings: Iterable[Ranking]) -> Ranking:
    """Rankings whose scores mean different things, as one: what is early in several comes first."""
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, (key, _) in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=_best_first)


def _best_first(entry: tuple[Key, float]) -> tuple[float, str, str, int]:
    (target, key, number), score = entry
    return -score, target, str(key), number
