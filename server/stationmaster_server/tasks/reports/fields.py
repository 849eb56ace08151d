"""Payload, variables and result of an execution as tables of a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stationmaster_server.tasks.model import Execution
from stationmaster_server.tasks.reports.model import Section, Table

_MOST_FIELDS, _MOST_CHARACTERS = 100, 4_000
"""Of a payload, of variables and of a result; of each value."""


def given(execution: Execution) -> Iterator[Section]:
    """What was to be done, as everybody sees it: secrets are masks in the execution already."""
    if execution.payload:
        yield Section("Payload", table=_table(execution.payload))
    if execution.variables:
        yield Section("Variables", table=_table(execution.variables))


def made(execution: Execution) -> Iterator[Section]:
    """What it made, where its kind does not say it better."""
    if execution.result:
        yield Section("Result", table=_table(execution.result))


def _table(values: Mapping[str, Any]) -> Table:
    rows = tuple((name, shown(value)) for name, value in list(values.items())[:_MOST_FIELDS])
    left_out = len(values) - len(rows)
    return Table(("Field", "Value"), (*rows, *([("…", f"{left_out:,} more fields")] if left_out else ())))


def shown(value: object) -> str:
    """A value as people read it: texts and lists of them as they are, all else as JSON."""
    if isinstance(value, str):
        return value[:_MOST_CHARACTERS]
    if value and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value[:_MOST_FIELDS])[:_MOST_CHARACTERS]
    return json.dumps(value, ensure_ascii=False, default=str)[:_MOST_CHARACTERS]
