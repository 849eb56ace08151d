"""Payloads filled in: the variables checked, the templates rendered, the result checked by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import templates
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.model import Task, task_name
from stationmaster_server.tasks.secrets import join
from stationmaster_server.templating.templates import Templates
from stationmaster_server.templating.variables import check_declarations, check_values

BUILT_IN = frozenset({"scheduled_time", "task"})
"""Variables that every template may use: the time that a schedule was due at, and the task's name."""


class Filling:
    """Fills payloads in. It may take a process and seconds: never within a transaction."""

    def __init__(self, kinds: Kinds, texts: Templates) -> None:
        self._kinds = kinds
        self._texts = texts

    async def check(self, task: Task, field: str = "task") -> None:
        """Whether the variables, templates and payload of a task can be. Raises InvalidArgument naming the paths."""
        check_declarations(task.variables, f"{field}.variables")
        names = BUILT_IN | {variable.name for variable in task.variables}
        await templates.check(self._texts, task.payload, names, f"{field}.payload")
        self._kinds.check(task.kind, join(task.payload, task.secrets), f"{field}.payload")

    async def fill(
        self, task: Task, values: Mapping[str, Any], scheduled_for: datetime | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload with masks for secrets, and all variables. Raises InvalidArgument naming all that is wrong."""
        variables = check_values(task.variables, values)
        due = "" if scheduled_for is None else scheduled_for.isoformat()
        context = {"scheduled_time": due, "task": task_name(task.task_id), **variables}
        payload = await templates.fill(self._texts, task.payload, context, "payload")
        _, secrets = self._kinds.part(task.kind, payload, "payload", task.secrets)
        for pointer in sorted(secrets.keys() - task.secrets.keys()):
            raise InvalidArgument.field(f"payload{pointer.replace('/', '.')}", "a secret cannot come from a variable")
        self._kinds.parse(task.kind, join(payload, task.secrets), "payload")
        return payload, variables
