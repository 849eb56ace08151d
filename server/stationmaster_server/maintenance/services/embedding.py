"""Vectors of tasks, messages and documents: those that are missing, and those that another encoder made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance import status_store
from stationmaster_server.maintenance.base import BackgroundService, Operation, Options
from stationmaster_server.maintenance.model import SILENT_FOR, Policy, Scope
from stationmaster_server.sessions import embeddings as messages
from stationmaster_server.tasks import embeddings
from stationmaster_server.tasks.process.renewing import Renewing
from stationmaster_server.tasks.services import TaskServices


class EmbeddingOptions(Options):
    """What task-embedding can be told."""

    batch_size: Annotated[int, Field(ge=1, le=5000, description="Tasks that one run puts into the queue at most")] = 500


class MessageOptions(Options):
    """What message-embedding can be told."""

    batch_size: Annotated[int, Field(ge=1, le=5000, description="Messages that one run embeds at most")] = 200


class DocumentOptions(Options):
    """What document-embedding can be told."""

    batch_size: Annotated[int, Field(ge=1, le=5000, description="Pieces that one run embeds anew at most")] = 200


class OneTask(Options):
    """Which task."""

    task: Annotated[str, Field(pattern=r"^tasks/[a-z][a-z0-9-]{0,62}$", description="`tasks/{task}`")]


async def alone(database: Database, encoder: str) -> bool:
    """Whether no server has another encoder. While some have, each leaves what others embedded as it is."""
    async with database.system(autocommit=True) as tx:
        return await status_store.encoders(tx, SILENT_FOR) <= {encoder}


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
        services = self._services
        others = await alone(services.database, services.embedder.name)
        await embeddings.embed_rest(services, self._batch_size, others=others)

    def operations(self) -> tuple[Operation[Any], ...]:
        """One task, whether or not it has a vector."""
        what = "Embed one task anew, whether or not its text has changed."
        return (Operation("embed-task", what, OneTask, self._embed_one),)

    async def _embed_one(self, caller: Caller, arguments: OneTask) -> Mapping[str, Any]:
        task_id = arguments.task.removeprefix("tasks/")
        encoder = await embeddings.embed_now(self._services, caller, task_id)
        return {"task": arguments.task, "encoder": encoder}


class MessageEmbedding(BackgroundService[MessageOptions]):
    """Embeds messages, a moment after they were written."""

    service_id = "message-embedding"
    description = "Embeds messages that lack vectors, or have those of an encoder that no server has any more."
    policy = Policy(timedelta(seconds=2))
    scope = Scope.ONE_SERVER
    options = MessageOptions

    def __init__(self, embedding: messages.MessageEmbedding, database: Database) -> None:
        self._embedding = embedding
        self._database = database
        self._batch_size = MessageOptions().batch_size

    async def configure(self, options: MessageOptions) -> None:
        """Take so many at once."""
        self._batch_size = options.batch_size

    async def update(self) -> None:
        """Embed some."""
        if not await self._embedding.embed_rest(self._batch_size) and await alone(
            self._database, self._embedding.encoder
        ):
            await self._embedding.begin_anew()


class DocumentEmbedding(BackgroundService[DocumentOptions]):
    """Embeds documents anew when the encoder is another."""

    service_id = "document-embedding"
    description = "Embeds documents anew whose vectors are of an encoder that no server has any more."
    policy = Policy(timedelta(seconds=20))
    scope = Scope.ONE_SERVER
    options = DocumentOptions

    def __init__(self, renewing: Renewing, database: Database) -> None:
        self._renewing = renewing
        self._database = database
        self._batch_size = DocumentOptions().batch_size

    async def configure(self, options: DocumentOptions) -> None:
        """Take so many at once."""
        self._batch_size = options.batch_size

    async def update(self) -> None:
        """Embed some."""
        if await alone(self._database, self._renewing.encoder):
            await self._renewing.renew(self._batch_size)
