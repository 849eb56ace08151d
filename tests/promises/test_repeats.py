"""Rule 7, for every method that changes something: a repeat gets the first answer and does nothing else."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import asyncpg
from google.protobuf.message import Message
from stationmaster.v1 import maintenance_pb2

from tests.contract.descriptors import Method, name_fields
from tests.contract.samples import put
from tests.contract.world import Caller
from tests.promises.refusal import refused
from tests.promises.valid import MUTATIONS, nobodys, request_for, value_at
from tests.waiting import until

RESOURCES = ("organizations", "users", "api_keys", "agents", "sessions", "turns", "tasks", "executions")
EVERYTHING = 1_000_000


async def answer_to(caller: Caller, method: Method, request: Message) -> Any:
    """What a call comes to: its answer, or the turn and all events of a stream."""
    answers = await caller.call(method, request, enough=EVERYTHING)
    if isinstance(answers[0], maintenance_pb2.BackgroundService):  # what it did goes on meanwhile, and is told as it is
        for part in ("metrics", "servers", "targets"):
            answers[0].ClearField(part)
    if not method.streams:
        return answers[0]
    events = [event.SerializeToString(deterministic=True) for answer in answers for event in answer.events]
    return answers[0].turn, events


async def rows(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, int]:
    """How many there are of each resource."""
    return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in RESOURCES}


async def quiet(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
    """Whether nothing is done in the background about executions."""
    busy = await connection.fetchval(
        """SELECT count(*) FROM work_items WHERE kind LIKE 'task.%' AND (follow_up AND NOT followed_up
           AND (state NOT IN ('WAITING', 'QUEUED') OR NOT paused))"""
    )
    return not busy


async def test_a_repeat_gets_the_first_answer_and_does_nothing_else(operator: Caller, administrator_url: str) -> None:
    connection = await asyncpg.connect(administrator_url)
    wrong = []
    for method in MUTATIONS:
        request = await request_for(operator, method)
        request.request_id = str(uuid.uuid4())
        first = await answer_to(operator, method, request)
        await until(partial(quiet, connection))
        before = await rows(connection)
        second = await answer_to(operator, method, request)
        if method.name == "IdentityService.CreateApiKey":
            assert first.secret
            first.secret = ""  # shown once
        if first != second:
            wrong.append(f"{method.name}: first {first}\nthen {second}")
        if await rows(connection) != before:
            wrong.append(f"{method.name} was done twice")
    await connection.close()
    assert not wrong, "\n".join(wrong)


async def test_a_request_id_belongs_to_one_body_of_one_method(operator: Caller) -> None:
    wrong, request_id = [], str(uuid.uuid4())
    for method in MUTATIONS:
        own_id = str(uuid.uuid4())
        for number, used in enumerate((own_id, own_id, request_id)):
            request = await request_for(operator, method)
            request.request_id = used
            if number == 0 or (method is MUTATIONS[0] and used == request_id):
                await answer_to(operator, method, request)
                continue
            refusal = await refused(answer_to(operator, method, request))
            if (refusal.code, refusal.reason) != ("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
                wrong.append(f"{method.name}: {refusal}")
            elif refusal.fields != ["request_id"]:
                wrong.append(f"{method.name}: {refusal.fields}")
    assert not wrong, "\n".join(wrong)


async def test_a_request_that_was_refused_is_not_remembered(operator: Caller) -> None:
    """The same id serves the corrected request."""
    wrong = []
    for method in MUTATIONS:
        good = await request_for(operator, method)
        good.request_id = str(uuid.uuid4())
        bad = type(good)()
        bad.CopyFrom(good)
        paths = [path for path in name_fields(method.request) if value_at(good, path)]
        for path in paths:
            put(bad, path, nobodys(value_at(good, path)))
        if not paths:
            bad = type(good)(request_id=good.request_id)
        refusal = await refused(answer_to(operator, method, bad))
        if refusal.code != ("NOT_FOUND" if paths else "INVALID_ARGUMENT"):
            wrong.append(f"{method.name}: {refusal}")
        await answer_to(operator, method, good)
    assert not wrong, "\n".join(wrong)
