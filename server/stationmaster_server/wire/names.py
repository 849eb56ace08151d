"""Resource names: `sessions/{session}` to ids and back (AIP-122)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, overload
from uuid import UUID

from stationmaster_server.errors import InvalidArgument, Reason

A = TypeVar("A", UUID, str, int)
B = TypeVar("B", UUID, str, int)

_VARIABLE = re.compile(r"\{(\w+)\}")
_SEGMENTS: dict[Callable[[str], Any], str] = {
    # Canonical only, so that one resource has one name.
    UUID: r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    str: r"[a-z][a-z0-9-]{0,62}",
    int: r"0|[1-9][0-9]{0,17}",
}


@overload
def parse(pattern: str, name: str, *, field: str = "name") -> UUID: ...
@overload
def parse(pattern: str, name: str, kind: type[A], *, field: str = "name") -> A: ...
def parse(pattern: str, name: str, kind: Callable[[str], Any] = UUID, *, field: str = "name") -> Any:
    """The id in a name with one variable: a UUID, or of the `kind` `str` (an id that callers choose) or `int`.

    Raises InvalidArgument(INVALID_NAME) on `field` when the name does not have the form of `pattern`.
    """
    (segment,) = _match(pattern, (kind,), name, field)
    return kind(segment)


def parse_pair(pattern: str, name: str, first: type[A], second: type[B], *, field: str = "name") -> tuple[A, B]:
    """The two ids in a name such as `sessions/{session}/messages/{message}`; otherwise as `parse`."""
    one, two = _match(pattern, (first, second), name, field)
    return first(one), second(two)


def format_name(pattern: str, *ids: UUID | str | int) -> str:
    """The name of these ids: `format_name("sessions/{session}", id)`."""
    values = iter(ids)
    return _VARIABLE.sub(lambda _: str(next(values)), pattern)


def _match(pattern: str, kinds: tuple[Callable[[str], Any], ...], name: str, field: str) -> tuple[str, ...]:
    match = _compiled(pattern, kinds).fullmatch(name)
    if match is None:
        raise InvalidArgument.field(field, f"must have the form {pattern}", Reason.INVALID_NAME)
    return match.groups()


@lru_cache(maxsize=256)
def _compiled(pattern: str, kinds: tuple[Callable[[str], Any], ...]) -> re.Pattern[str]:
    segments = iter(kinds)
    literals = _VARIABLE.split(pattern)[::2]
    parts = [f"({_SEGMENTS[next(segments)]})" + re.escape(literal) for literal in literals[1:]]
    return re.compile(re.escape(literals[0]) + "".join(parts))
