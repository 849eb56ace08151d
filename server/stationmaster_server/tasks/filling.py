"""Payloads filled in: the variables checked, the templates rendered, the result checked by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import keys, templates
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.secrets import join
from stationmaster_server.templating.templates import Templates
from stationmaster_server.templating.variables import check_declarations, check_values

BUILT_IN = frozenset({"scheduled_time", "task"})
"""Variables that every template may use: the time that a schedule was due at, and the task's name."""


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A payload with templates, as its task has it or as an execution of that was submitted with it."""

    kind: str
    task_id: str
    payload: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(repr=False)
    scheduled_for: datetime | None = None


class Filling:
    """Fills payloads in. It may take a process and seconds: never within a transaction."""

    def __init__(self, kinds: Kinds, texts: Templates) -> None:
        self._kinds = kinds
        self._texts = texts

    async def check(self, task: Task, path: str = "task") -> None:
        """Whether the variables, templates and payload of a task can be. Raises InvalidArgument naming the paths."""
        check_declarations(task.variables, f"{path}.variables")
        names = BUILT_IN | {variable.name for variable in task.variables}
        keys.check(task.options, names, f"{path}.options")
        await templates.check(self._texts, task.payload, names, f"{path}.payload")
        self._kinds.check(task.kind, join(task.payload, task.secrets), f"{path}.payload")

    async def fill(self, task: Task, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload with masks for secrets, and all variables. Raises InvalidArgument naming all that is wrong."""
        variables = check_values(task.variables, values)
        unfilled = Unfilled(task.kind, task.task_id, task.payload, task.secrets)
        return await self.fill_in(unfilled, variables), variables

    async def fill_in(self, unfilled: Unfilled, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The payload with masks for secrets, of variables that were checked. Raises InvalidArgument as `fill`."""
        context = keys.context(unfilled.task_id, variables, unfilled.scheduled_for)
        payload = await templates.fill(self._texts, unfilled.payload, context, "payload")
        _, secrets = self._kinds.part(unfilled.kind, payload, "payload", unfilled.secrets)
        for pointer in sorted(secrets.keys() - unfilled.secrets.keys()):
            raise InvalidArgument.field(f"payload{pointer.replace('/', '.')}", "a secret cannot come from a variable")
        self._kinds.parse(unfilled.kind, join(payload, unfilled.secrets), "payload")
        return payload
