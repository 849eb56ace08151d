"""Variables, and what is known of a template before it is filled in. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class VariableType(StrEnum):
    """The type of a variable."""

    STRING = "STRING"
    INTEGER = "INTEGER"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    LIST = "LIST"
    OBJECT = "OBJECT"
    ANY = "ANY"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that templates use. `has_default` tells a default of null from none; `allowed` empty: any value."""

    name: str
    type: VariableType = VariableType.STRING
    description: str = ""
    required: bool = False
    has_default: bool = False
    default: Any = None
    allowed: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a template, in which line of it."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        """For people."""
        return self.text if self.line is None else f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Outline:
    """What a template uses: variables that it needs, and those that it can do without (`default`, `is defined`).

    `linear`: it has no loops, calls or arithmetic, so that it costs at most `weight` passes over its variables.
    """

    required: frozenset[str]
    optional: frozenset[str]
    linear: bool
    weight: int

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return self.required | self.optional
