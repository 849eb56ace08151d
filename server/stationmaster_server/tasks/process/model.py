"""Documents and their pieces. Standard library only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Unit(StrEnum):
    """What sizes are counted in. `TOKENS` is an estimate for any language: four bytes of UTF-8 each."""

    CHARACTERS = "CHARACTERS"
    TOKENS = "TOKENS"


class Cut(StrEnum):
    """Where pieces end: each with its section; between paragraphs; or between sentences, which fills pieces best."""

    HEADINGS = "HEADINGS"
    PARAGRAPHS = "PARAGRAPHS"
    SENTENCES = "SENTENCES"


@dataclass(frozen=True, slots=True)
class Splitting:
    """How a text is split: pieces of `size` at most, each of which repeats up to `overlap` of the one before."""

    size: int = 1200
    overlap: int = 150
    unit: Unit = Unit.CHARACTERS
    cut: Cut = Cut.HEADINGS


@dataclass(frozen=True, slots=True)
class Piece:
    """`text[start:end]` of a document, and the headings above its beginning, outermost first."""

    number: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A text to be processed."""

    name: str
    title: str
    media_type: str
    text: str

    def sha256(self) -> bytes:
        """Of the text as UTF-8."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is stored; `pieces`: how many are."""

    id: UUID
    user_id: UUID
    execution_id: UUID
    source: str
    title: str
    media_type: str
    size_bytes: int
    sha256: bytes
    encoder: str
    pieces: int
    ready: bool
    created_at: datetime


def document_name(document_id: UUID) -> str:
    """The document's name."""
    return f"documents/{document_id}"
