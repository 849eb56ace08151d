"""The keys of options as templates over a task's variables: filled in when an execution is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from stationmaster_server.errors import FieldViolation, InvalidArgument
from stationmaster_server.tasks.model import Options, task_name
from stationmaster_server.templating import simple
from stationmaster_server.templating.model import Fault
from stationmaster_server.templating.templates import is_template
from stationmaster_server.templating.variables import names_fault

MOST_CHARACTERS = 200
"""Of a key."""


def context(task_id: str, variables: Mapping[str, Any], due: datetime | None) -> dict[str, Any]:
    """What the templates of a task see."""
    return {"scheduled_time": "" if due is None else due.isoformat(), "task": task_name(task_id), **variables}


def check(options: Options, names: frozenset[str], path: str) -> None:
    """Whether the keys can be filled in from variables of these names. Raises InvalidArgument naming the paths."""
    faults = []
    for at, text in _templates(options):
        found = simple.examine(text)
        fault = f"{found}" if isinstance(found, Fault) else names_fault(found.names, names)
        faults += [FieldViolation(f"{path}.{at}", fault[:500])] if fault else []
    if faults:
        raise InvalidArgument.fields(faults)


def require_plain(options: Options, path: str) -> None:
    """Refuse templates where there are no variables. Raises InvalidArgument naming the paths."""
    if faults := [
        FieldViolation(f"{path}.{at}", "an execution without a task has no variables: write the key itself")
        for at, _ in _templates(options)
    ]:
        raise InvalidArgument.fields(faults)


def fill(options: Options, values: Mapping[str, Any], path: str = "options") -> Options:
    """The options with their keys filled in. Raises InvalidArgument naming the paths."""
    filled, faults = dict[str, str](), []
    for at, text in _templates(options):
        made = simple.fill(text, values)
        if fault := _fault(made):
            faults.append(FieldViolation(f"{path}.{at}", fault[:500]))
        else:
            filled[at] = f"{made}"
    if faults:
        raise InvalidArgument.fields(faults)
    concurrency, rate = options.concurrency, options.rate
    if concurrency is not None and "concurrency.key" in filled:
        options = replace(options, concurrency=replace(concurrency, key=filled["concurrency.key"]))
    if rate is not None and "rate.key" in filled:
        options = replace(options, rate=replace(rate, key=filled["rate.key"]))
    return options


def _fault(made: str | Fault) -> str:
    if isinstance(made, Fault):
        return f"{made}"
    if not made.strip():
        return "filled in, it is empty: give its variables values, or write something before them"
    if len(made) > MOST_CHARACTERS:
        return f"filled in, it has {len(made)} characters; {MOST_CHARACTERS} are allowed"
    return "filled in, it has a NUL character" if "\0" in made else ""


def _templates(options: Options) -> Iterator[tuple[str, str]]:
    if options.concurrency is not None and is_template(options.concurrency.key):
        yield "concurrency.key", options.concurrency.key
    if options.rate is not None and is_template(options.rate.key):
        yield "rate.key", options.rate.key
