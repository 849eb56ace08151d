"""What a message tells the demo model to do.

Lines that begin with a slash are orders, done from the first to the last:

    /say N           N words: word1 word2 ...
    /slow MS         from here on so many milliseconds before each word
    /think TEXT      thinks the text, word by word
    /tool NAME {}    calls the tool with these arguments; each call is a step of its own
    /tools           from here on calls that stand together are made in one step
    /fail REASON     the provider fails: rate_limit, overloaded, server, connection, auth, context, or any text

A message without such lines is read by `words.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from stationmaster_server.agents.demo import words


@dataclass(frozen=True, slots=True)
class Say:
    """So many words."""

    count: int


@dataclass(frozen=True, slots=True)
class Tell:
    """This text."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    """Thinks this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Slow:
    """A pause before each word from here on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """The provider fails."""

    reason: str


@dataclass(frozen=True, slots=True)
class Call:
    """Calls a tool with these arguments (JSON text)."""

    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that are made in one step."""

    calls: tuple[Call, ...]


Order = Say | Tell | Think | Slow | Fail | Calls


@lru_cache(maxsize=256)
def parse(message: str) -> tuple[Order, ...]:
    """The orders in a message. A line that is no order is passed over when there are orders."""
    lines = [line.strip() for line in message.splitlines()]
    if not any(line.startswith("/") for line in lines):
        return _by_words(message)
    return tuple(_grouped(line for line in lines if line.startswith("/")))


def _by_words(message: str) -> tuple[Order, ...]:
    understood = words.understand(message)
    if understood is None:
        return (Tell(words.HELP),)
    return (Calls((Call(*understood),)),)


def _grouped(lines: Iterator[str]) -> Iterator[Order]:
    together = False
    waiting: list[Call] = []
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "/tools":
            together = True
            continue
        order = _order(name, rest.strip())
        if isinstance(order, Call) and together:
            waiting.append(order)
            continue
        if waiting:
            yield Calls(tuple(waiting))
            waiting = []
        yield Calls((order,)) if isinstance(order, Call) else order
    if waiting:
        yield Calls(tuple(waiting))


def _order(name: str, rest: str) -> Order | Call:
    match name:
        case "/say" if rest.isdecimal():
            return Say(int(rest))
        case "/slow" if rest.replace(".", "", 1).isdecimal():
            return Slow(float(rest) / 1000)
        case "/think":
            return Think(rest)
        case "/tool" if rest:
            tool, _, arguments = rest.partition(" ")
            return Call(tool, arguments.strip() or "{}")
        case "/fail":
            return Fail(rest or "server")
    return Tell(f"I do not understand {name} {rest}".rstrip() + ".")
