"""Templates as the rooms use them: simple ones are filled in at once, all others in a process with a time limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar, TypeVarTuple

from stationmaster_server.errors import DeadlineExceeded, FieldViolation, InvalidArgument, Reason, ResourceExhausted
from stationmaster_server.templating import engine, includes
from stationmaster_server.templating.filters import MOST_CHARACTERS
from stationmaster_server.templating.model import Fault, Outline
from stationmaster_server.templating.variables import flat_size

T = TypeVar("T")
Args = TypeVarTuple("Args")

TIMEOUT = timedelta(seconds=2)
_LITTLE_WORK = 1_000_000
"""Characters that are passed over, within some milliseconds; to begin with a template takes as long as `_BEGINNING`."""
_BEGINNING = 5_000


class Runner(Protocol):
    """Runs a function of a module in a process of its own; see `resilience.pools.Pools.cpu`."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Raises DeadlineExceeded at the limit, after which the process has ended; ResourceExhausted for memory."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A template that is filled in often: what can be known of it before is. `weight` None: it goes to a process."""

    text: str
    weight: int | None

    @classmethod
    def of(cls, text: str) -> Ready:
        """Compiles it, if that takes some milliseconds at most; what is wrong with it is said when it is filled in."""
        if not engine.is_short(text):
            return cls(text, None)
        try:
            outline = engine.outline(text)
        except engine.Faulty:
            return cls(text, 0)
        return cls(text, outline.weight if outline.linear else None)


class Templates:
    """Checks templates and fills them in. Texts are given by their paths, which errors name."""

    def __init__(self, run: Runner, *, timeout: timedelta = TIMEOUT) -> None:
        self._run = run
        self._timeout = timeout

    async def outlines(self, texts: Mapping[str, str]) -> dict[str, Outline]:
        """What each template uses. Raises InvalidArgument naming the path and line of each that is none."""
        return _without_faults(await self.examine(texts))

    async def examine(self, texts: Mapping[str, str]) -> dict[str, Outline | Fault]:
        """What each template uses, or why it is none."""
        short = set(engine.short_ones(texts.values()))
        here = {path: text for path, text in texts.items() if text in short}
        found = engine.outlines(here)
        if apart := {path: text for path, text in texts.items() if path not in here}:
            found |= await self._apart(apart, engine.outlines, apart)
        return found

    async def fill(
        self, texts: Mapping[str, str], values: Mapping[str, Any], *, most: int = MOST_CHARACTERS
    ) -> dict[str, str]:
        """Each template filled in with JSON values, to at most so many characters together.

        Raises InvalidArgument naming each path and all that is missing.
        """
        size = size_of(values)
        easy = set(_easy_ones(texts.values(), size))
        here = {path: text for path, text in texts.items() if text in easy}
        filled = engine.fill_all(here, values, most)
        if apart := {path: text for path, text in texts.items() if path not in here}:
            made = sum(len(one) for one in filled.values() if isinstance(one, str))
            filled |= await self._apart(apart, engine.fill_all, apart, dict(values), most, made)
        return _without_faults(filled)

    async def fill_ready(self, ready: Ready, values: Mapping[str, Any], path: str) -> str:
        """As `fill`, of one template; one that is simple costs no more than filling it in."""
        if ready.weight is not None and ready.weight * (1 + size_of(values)) <= _LITTLE_WORK:
            try:
                return engine.fill(ready.text, values)
            except engine.Faulty as error:
                raise _refusal({path: error.fault}) from None
        filled = await self._apart({path: ready.text}, engine.fill_all, {path: ready.text}, dict(values))
        return _without_faults(filled)[path]

    async def includes(self, text: str, path: str) -> tuple[str, ...]:
        """The names that a template includes. Raises InvalidArgument."""
        return await self._simple(text, path, includes.names, text)

    async def expand(self, text: str, by_name: Mapping[str, str], path: str) -> str:
        """The template with its includes replaced. Raises InvalidArgument when it becomes too long."""
        return await self._simple(text, path, includes.expand, text, dict(by_name))

    async def _simple(self, text: str, path: str, function: Callable[[*Args], T], *args: *Args) -> T:
        """Here if the text is short, else apart."""
        try:
            if engine.is_short(text):
                return function(*args)
            return await self._apart({path: text}, function, *args)
        except engine.Faulty as error:
            raise _refusal({path: error.fault}) from None

    async def _apart(self, texts: Mapping[str, str], function: Callable[[*Args], T], *args: *Args) -> T:
        try:
            return await self._run(function, *args, timeout=self._timeout)
        except DeadlineExceeded:
            fault = f"it takes longer than {self._timeout.total_seconds():g} s: let it do less"
        except ResourceExhausted as error:
            if error.reason is not Reason.LIMIT_REACHED:
                raise
            fault = "it needs too much memory: let it do less"
        raise _refusal({path: Fault(fault) for path in texts})


def size_of(values: Mapping[str, Any]) -> int:
    """About how many characters values have."""
    flat = flat_size(values)
    return len(json.dumps(values, ensure_ascii=False)) if flat is None else flat


def is_little(outline: Outline, size: int) -> bool:
    """Whether a linear template passes over values of that size within some milliseconds."""
    return outline.weight * (1 + size) <= _LITTLE_WORK


def is_template(text: str) -> bool:
    """Whether there is anything to fill in."""
    return "{{" in text or "{%" in text or "{#" in text


def _easy_ones(texts: Iterable[str], size: int) -> Iterator[str]:
    """Those that are compiled and filled in within some milliseconds, all together."""
    room = _LITTLE_WORK
    for text in engine.short_ones(texts):
        try:
            outline = engine.outline(text)
        except engine.Faulty:
            yield text
            continue
        work = _BEGINNING + outline.weight * (1 + size)
        if outline.linear and work <= room:
            room -= work
            yield text


def _without_faults(found: Mapping[str, T | Fault]) -> dict[str, T]:
    if faults := {path: fault for path, fault in found.items() if isinstance(fault, Fault)}:
        raise _refusal(faults)
    return {path: value for path, value in found.items() if not isinstance(value, Fault)}


def _refusal(faults: Mapping[str, Fault]) -> InvalidArgument:
    return InvalidArgument.fields([FieldViolation(path, f"{fault}"[:500]) for path, fault in faults.items()])
