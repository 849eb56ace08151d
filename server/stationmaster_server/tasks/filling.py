"""Payloads filled in: the variables checked, the templates rendered, the result checked by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.model import Task, Variable

BUILT_IN = ("scheduled_time", "task")
"""Variables that every template may use."""


class Filling:
    """Fills payloads in."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)

    def check(self, task: Task, field: str) -> None:
        """Whether the templates and variables of a task can be used. Raises InvalidArgument naming the path."""
        declared = {variable.name for variable in task.variables} | set(BUILT_IN)
        for path, text in _texts(task.payload, f"{field}.payload"):
            try:
                used = meta.find_undeclared_variables(self._environment.parse(text))
            except TemplateError as error:
                raise InvalidArgument.field(path, f"is no template: {error}") from None
            if unknown := sorted(used - declared):
                raise InvalidArgument.field(path, f"uses variables that are not declared: {', '.join(unknown)}")
        self._kinds.check(task.kind, task.payload, f"{field}.payload")

    async def fill(
        self, task: Task, values: Mapping[str, Any], scheduled_for: datetime | None = None, field: str = "task"
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload and the variables with their defaults. Raises InvalidArgument naming all that is wrong."""
        variables = _with_defaults(task.variables, values)
        context = {
            **variables,
            "scheduled_time": scheduled_for.isoformat() if scheduled_for else "",
            "task": f"tasks/{task.task_id}",
        }
        payload = self._render(dict(task.payload), context, f"{field}.payload")
        self._kinds.parse(task.kind, payload, f"{field}.payload")
        return payload, variables

    def _render(self, value: Any, context: Mapping[str, Any], path: str) -> Any:
        if isinstance(value, str):
            try:
                return self._environment.from_string(value).render(context)
            except UndefinedError as error:
                raise InvalidArgument.field(path, str(error)) from None
        if isinstance(value, Mapping):
            return {key: self._render(item, context, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._render(item, context, f"{path}[{place}]") for place, item in enumerate(value)]
        return value


def _with_defaults(variables: tuple[Variable, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    known = {variable.name: variable for variable in variables}
    if unknown := sorted(set(values) - set(known)):
        raise InvalidArgument.field("variables", f"not declared: {', '.join(unknown)}")
    if missing := sorted(v.name for v in variables if v.required and not v.has_default and v.name not in values):
        raise InvalidArgument.field("variables", f"missing: {', '.join(missing)}")
    return {name: values.get(name, variable.default) for name, variable in known.items()}


def _texts(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [one for key, item in value.items() for one in _texts(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [one for place, item in enumerate(value) for one in _texts(item, f"{path}[{place}]")]
    return []
