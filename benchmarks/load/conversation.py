"""A conversation with any server: create a session, send a message, read the reply to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a message."""

    first: float
    """Seconds to the first word."""
    seconds: float
    """Seconds to the end of the stream."""
    right: bool
    """Whether the text is what was asked for, and the server says that it is complete."""


class Conversation(Protocol):
    """One caller. Each caller of a load has its own, as each user has."""

    async def create(self) -> str:
        """A new session."""
        ...

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


def expected(words: int) -> str:
    """What every model here says when it is asked for so many words: `word1 word2 …`."""
    return " ".join(f"word{number}" for number in range(1, words + 1))
