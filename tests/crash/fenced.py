"""A plug-in: a kind of task whose side effects tell, in a schema of its own, who ran what, when, beside whom.

It imports nothing of the tests: servers in processes of their own find it through its entry point.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
from pydantic import BaseModel
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Payload

SCHEMA = """
CREATE SCHEMA outside;
CREATE TABLE outside.fences (execution_id uuid PRIMARY KEY, token int NOT NULL);
CREATE TABLE outside.effects (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, execution_id uuid NOT NULL, attempt int NOT NULL,
    shift int NOT NULL, what text NOT NULL, worker int NOT NULL, UNIQUE (execution_id, attempt, shift, what)
);
CREATE TABLE outside.met (execution_id uuid NOT NULL, attempt int NOT NULL, worker int NOT NULL);
"""
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# An effect of an attempt is refused once a later one has had any. One that was handed back begins another shift.
_TELL = """
WITH passed AS (
    INSERT INTO outside.fences AS f VALUES ($1, $2)
    ON CONFLICT (execution_id) DO UPDATE SET token = excluded.token WHERE f.token <= excluded.token RETURNING token
)
INSERT INTO outside.effects (execution_id, attempt, shift, what, worker)
SELECT $1, $2, ($3 = 'begun')::int + (SELECT count(*) FROM outside.effects e
                                      WHERE e.execution_id = $1 AND e.attempt = $2 AND e.what = 'begun'), $3, $4
FROM passed RETURNING number
"""


class FencedPayload(Payload):
    """`fail`: attempts up to this one fail. `broken`: the first failure is for good."""

    steps: int = 1
    fail: int = 0
    broken: bool = False


class Fenced:
    """Saves a checkpoint before each side effect, which is fenced by the attempt, and looks who runs the same.

    While an attempt runs, its process's connection holds an advisory lock on the execution. It goes with the process,
    however that ends: who does not get the lock has met another attempt that is still alive.
    """

    name: ClassVar[str] = "fenced"
    payload: ClassVar[type[BaseModel]] = FencedPayload

    def __init__(self) -> None:
        self._url = os.environ["FENCED_URL"]
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._here: set[UUID] = set()

    async def run(self, job: Job[FencedPayload]) -> Done:
        """Run."""
        payload = job.payload
        async with self._alone(job):
            await self._tell(job, "begun")
            job.log(f"attempt {job.attempt} begins")
            for step in range(1, payload.steps + 1):
                job.progress(step / payload.steps, f"step {step}")
                await job.save({"attempt": job.attempt, "step": step})
                await self._tell(job, f"step {step}")
            if payload.broken or job.attempt <= payload.fail:
                raise KindFailed("as it was told", reason="TOLD", retryable=not payload.broken)
            await self._tell(job, "ended")
        return Done({"attempt": job.attempt})

    @asynccontextmanager
    async def _alone(self, job: Job[FencedPayload]) -> AsyncIterator[None]:
        one = job.execution_id
        try:  # from here on: who is cancelled while it waits for the lock has it
            free = await self._ask("SELECT pg_try_advisory_lock(hashtextextended($1::uuid::text, 0))", one)
            if not free or one in self._here:
                await self._ask("INSERT INTO outside.met VALUES ($1, $2, $3)", one, job.attempt, os.getpid())
            self._here.add(one)
            yield
        finally:
            self._here.discard(one)
            with suppress(*_LOST):  # it goes with the connection
                await self._ask("SELECT pg_advisory_unlock(hashtextextended($1::uuid::text, 0))", one)

    async def _tell(self, job: Job[FencedPayload], what: str) -> None:
        if await self._ask(_TELL, job.execution_id, job.attempt, what, os.getpid()) is None:
            raise KindFailed("a later attempt has begun", reason="FENCED_OFF")

    async def _ask(self, sql: str, *args: object) -> Any:
        """Ask to the end, though it is cancelled meanwhile: the connection has the locks of others, too."""
        answer = asyncio.ensure_future(self._asked(sql, *args))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await asyncio.wait([answer])
            raise

    async def _asked(self, sql: str, *args: object) -> Any:
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url)
            try:
                return await self._connection.fetchval(sql, *args)
            except BaseException:
                self._connection.terminate()  # it may be amid an answer: what asks next gets one of its own
                raise
