"""Vectors of tasks: those that are missing, now and then, and those that somebody wants made anew."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.maintenance.base import BackgroundService, Operation, Options
from stationmaster_server.maintenance.model import Policy, Scope
from stationmaster_server.tasks import embeddings
from stationmaster_server.tasks.services import TaskServices


class EmbeddingOptions(Options):
    """What task-embedding can be told."""

    batch_size: Annotated[int, Field(ge=1, le=5000, description="Tasks that one run puts into the queue at most")] = 500


class OneTask(Options):
    """Which task."""

    task: Annotated[str, Field(pattern=r"^tasks/[a-z][a-z0-9-]{0,62}$", description="`tasks/{task}`")]


class TaskEmbedding(BackgroundService[EmbeddingOptions]):
    """Has tasks embedded that lack a vector of their text as it is: by this server's encoder."""

    service_id = "task-embedding"
    description = "Has tasks embedded that lack a vector of their text as it is, by this server's encoder."
    policy = Policy(timedelta(minutes=1))
    scope = Scope.ONE_SERVER
    options = EmbeddingOptions

    def __init__(self, services: TaskServices) -> None:
        self._services = services
        self._batch_size = EmbeddingOptions().batch_size

    async def configure(self, options: EmbeddingOptions) -> None:
        """Take so many at once."""
        self._batch_size = options.batch_size

    async def update(self) -> None:
        """Put them into the queue."""
        await embeddings.embed_rest(self._services, self._batch_size)

    def operations(self) -> tuple[Operation[Any], ...]:
        """One task, whether or not it has a vector."""
        what = "Embed one task anew, whether or not its text has changed."
        return (Operation("embed-task", what, OneTask, self._embed_one),)

    async def _embed_one(self, caller: Caller, arguments: OneTask) -> Mapping[str, Any]:
        task_id = arguments.task.removeprefix("tasks/")
        encoder = await embeddings.embed_now(self._services, caller, task_id)
        return {"task": arguments.task, "encoder": encoder}
