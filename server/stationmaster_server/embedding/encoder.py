"""What makes vectors of texts. Vectors of different encoders are never compared: the name is kept beside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Vector = list[float]
"""Of length 1, or all zeros for a text in which the encoder finds nothing."""
DIMENSIONS = 384
"""Of every encoder: the tables have columns of this size."""


class Encoder(Protocol):
    """Makes vectors of `DIMENSIONS` numbers. It is pickled for the process that computes."""

    @property
    def name(self) -> str:
        """Which encoder, and which version of it: another name whenever the same text may get another vector."""
        ...

    @property
    def unrelated(self) -> float:
        """The cosine similarity up to which two texts have nothing to do with each other."""
        ...

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text; the same for the same text, on every machine."""
        ...
