"""What a search through tasks and documents is asked, and what it finds. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from stationmaster_server.tasks.model import Task


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
