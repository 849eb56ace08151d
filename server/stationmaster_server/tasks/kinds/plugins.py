"""Kinds of plug-ins: distributions that name a class in the group of entry points `stationmaster.task_kinds`."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from stationmaster_server.tasks.kinds.base import Kind
from stationmaster_server.tasks.kinds.registry import NAME

ENTRY_POINTS = "stationmaster.task_kinds"
"""The group of entry points: each names a class that implements `Kind` and needs no arguments."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one entry point: its kind, or why there is none."""

    point: str
    kind: Kind[Any] | None = None
    problem: str = ""


def find(taken: Collection[str]) -> Iterator[Found]:
    """Load every plug-in. `taken`: names of kinds that no plug-in may have. Nothing that a plug-in does ends this."""
    names = set(taken)
    for point in _points(tuple(sys.path)):
        found = _load(point, names)
        if found.kind is not None:
            names.add(found.kind.name)
        yield found


def installed(taken: Collection[str]) -> list[Kind[Any]]:
    """The kinds of plug-ins. What cannot be used is left out, and the log says why."""
    kinds: list[Kind[Any]] = []
    for found in find(taken):
        if found.kind is not None:
            kinds.append(found.kind)
        else:
            logger.error("the plug-in %s is left out: %s", found.point, found.problem)
    return kinds


@cache
def _points(_path: tuple[str, ...]) -> list[EntryPoint]:
    """What the packages on the path name, in order; once for a process, as it reads the metadata of each of them."""
    return sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value))


def _load(point: EntryPoint, taken: Collection[str]) -> Found:
    where = f"{point.name} ({point.value})"
    try:
        kind = point.load()()
        problem = _problem(kind, taken)
    except (Exception, SystemExit) as error:
        logger.debug("the plug-in %s cannot be loaded", where, exc_info=True)
        return Found(where, problem=f"it raised {type(error).__name__}: {error}"[:500])
    return Found(where, problem=problem) if problem else Found(where, kind)


def _problem(kind: Any, taken: Collection[str]) -> str:
    """Why it is no kind; nothing when it is one."""
    name, payload = getattr(kind, "name", None), getattr(kind, "payload", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"its `name` is {name!r}; write one like `word_count`: {NAME.pattern}"
    if name in taken:
        return f"there is a kind {name!r} already; choose another `name`"
    if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
        return f"its `payload` is {payload!r}; write a subclass of `Payload`"
    payload.model_json_schema()
    if not inspect.iscoroutinefunction(getattr(kind, "run", None)):
        return "it has no `async def run(self, job)`"
    return ""
