"""The parts of tasks that are stored as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from stationmaster_server.tasks.model import Options, Schedule, Variable

_OPTIONS = TypeAdapter(Options)
_SCHEDULE = TypeAdapter(Schedule)
_VARIABLES = TypeAdapter(tuple[Variable, ...])


def options_to_json(options: Options) -> dict[str, Any]:
    """Options as they are stored: what is default is left out."""
    document: dict[str, Any] = _OPTIONS.dump_python(options, mode="json", exclude_defaults=True)
    return document


def options_from_json(document: dict[str, Any]) -> Options:
    """Options as they were stored."""
    return _OPTIONS.validate_python(document)


def schedule_to_json(schedule: Schedule | None) -> dict[str, Any] | None:
    """A schedule as it is stored."""
    if schedule is None:
        return None
    document: dict[str, Any] = _SCHEDULE.dump_python(schedule, mode="json", exclude_defaults=True)
    return document


def schedule_from_json(document: dict[str, Any] | None) -> Schedule | None:
    """A schedule as it was stored."""
    return None if document is None else _SCHEDULE.validate_python(document)


def variables_to_json(variables: tuple[Variable, ...]) -> list[dict[str, Any]]:
    """Variables as they are stored."""
    document: list[dict[str, Any]] = _VARIABLES.dump_python(variables, mode="json", exclude_defaults=True)
    return document


def variables_from_json(document: list[dict[str, Any]]) -> tuple[Variable, ...]:
    """Variables as they were stored."""
    return _VARIABLES.validate_python(document)
