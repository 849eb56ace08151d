"""Templates as the rooms use them: simple ones are filled in at once, all others in a process with a time limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeVar, TypeVarTuple

from stationmaster_server.errors import DeadlineExceeded, FieldViolation, InvalidArgument, Reason, ResourceExhausted
from stationmaster_server.templating import engine
from stationmaster_server.templating.model import Fault, Outline

T = TypeVar("T")
Args = TypeVarTuple("Args")

TIMEOUT = timedelta(seconds=2)
_LITTLE_WORK = 1_000_000
"""Characters that are passed over, within some milliseconds."""


class Runner(Protocol):
    """Runs a function of a module in a process of its own; see `resilience.pools.Pools.cpu`."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Raises DeadlineExceeded at the limit, after which the process has ended; ResourceExhausted for memory."""
        ...


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
        here = {path: text for path, text in texts.items() if engine.is_short(text)}
        found = engine.outlines(here)
        if apart := {path: text for path, text in texts.items() if path not in here}:
            found |= await self._apart(apart, engine.outlines, apart)
        return found

    async def fill(self, texts: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
        """Each template filled in with JSON values. Raises InvalidArgument naming each path and all that is missing."""
        size = len(json.dumps(values, ensure_ascii=False))
        here = {path: text for path, text in texts.items() if _is_easy(text, size)}
        filled = engine.fill_all(here, values)
        if apart := {path: text for path, text in texts.items() if path not in here}:
            filled |= await self._apart(apart, engine.fill_all, apart, dict(values))
        return _without_faults(filled)

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


def is_template(text: str) -> bool:
    """Whether there is anything to fill in."""
    return "{{" in text or "{%" in text or "{#" in text


def _is_easy(text: str, size: int) -> bool:
    if not engine.is_short(text):
        return False
    try:
        outline = engine.outline(text)
    except engine.Faulty:
        return True
    return outline.linear and outline.weight * (1 + size) <= _LITTLE_WORK


def _without_faults(found: Mapping[str, T | Fault]) -> dict[str, T]:
    if faults := {path: fault for path, fault in found.items() if isinstance(fault, Fault)}:
        raise _refusal(faults)
    return {path: value for path, value in found.items() if not isinstance(value, Fault)}


def _refusal(faults: Mapping[str, Fault]) -> InvalidArgument:
    return InvalidArgument.fields([FieldViolation(path, f"{fault}"[:500]) for path, fault in faults.items()])
