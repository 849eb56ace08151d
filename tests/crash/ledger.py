"""What must be true of executions once all have ended, whatever was killed meanwhile: read from the database itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID

import asyncpg

FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}
CUT_OFF = {"LEASE_EXPIRED", "DATABASE_UNAVAILABLE"}
"""Why an attempt is repeated that had done everything: its end could not be written."""
STATES = {"SUCCEEDED": "SUCCEEDED", "DEAD": "FAILED", "CANCELLED": "CANCELLED"}

Connection = Any


async def all_is_done(connection: Connection) -> bool:
    """Every execution has ended and its end was followed up; every report is made."""
    left = await connection.fetchval(
        """SELECT count(*) FROM work_items WHERE (kind LIKE 'task.%' OR kind = 'task_report')
           AND (state NOT IN ('SUCCEEDED', 'DEAD', 'CANCELLED') OR follow_up AND NOT followed_up)"""
    )
    return bool(left == 0)


async def ended(connection: Connection) -> int:
    """How many executions have ended."""
    sql = "SELECT count(*) FROM work_items WHERE kind LIKE 'task.%' AND state IN ('SUCCEEDED', 'DEAD', 'CANCELLED')"
    return int(await connection.fetchval(sql))


async def handed_back(connection: Connection) -> int:
    """How often executions were handed back."""
    sql = "SELECT count(*) FROM events WHERE kind = 'execution_state_changed' AND body ->> 'reason' = 'HANDED_BACK'"
    return int(await connection.fetchval(sql))


async def check(url: str) -> dict[UUID, str]:
    """Check everything that is promised of every execution; the state of each."""
    connection = await asyncpg.connect(url)
    try:
        items = {
            row["item_id"]: row
            for row in await connection.fetch(
                """SELECT i.item_id, i.state, i.attempt, i.errors, s.last_sequence FROM executions e
                   JOIN work_items i ON i.item_id = e.id JOIN streams s ON s.stream_id = e.id"""
            )
        }
        streams = _by_execution(
            await connection.fetch(
                """SELECT stream_id AS execution_id, sequence, kind, body FROM events
                   WHERE stream_id IN (SELECT id FROM executions) ORDER BY stream_id, sequence"""
            )
        )
        effects = _by_execution(await connection.fetch("SELECT * FROM outside.effects ORDER BY execution_id, number"))
        ends = Counter(
            UUID(row["resource"].removeprefix("executions/"))
            for row in await connection.fetch("SELECT resource FROM audit_events WHERE action = 'execution.end'")
        )
        met = await connection.fetch("SELECT * FROM outside.met")
    finally:
        await connection.close()
    for one in met:
        _check_meeting(items[one["execution_id"]], one)
    for execution_id, item in items.items():
        _check_stream(item, streams[execution_id])
        _check_effects(item, effects[execution_id])
    assert ends == Counter(dict.fromkeys(items, 1)), "ends in the audit trail"
    return {execution_id: STATES[item["state"]] for execution_id, item in items.items()}


def _check_stream(item: Any, stream: list[Any]) -> None:
    """Sequences from 1 without a hole; attempts in their order; one end, which is the last event."""
    assert [event["sequence"] for event in stream] == list(range(1, item["last_sequence"] + 1))
    changes = [json.loads(event["body"]) for event in stream if event["kind"] == "execution_state_changed"]
    states = [change["state"] for change in changes]
    assert states[0] in {"QUEUED", "BLOCKED"}
    assert [state for state in states if state in FINAL] == [STATES[item["state"]]]
    assert json.loads(stream[-1]["body"]).get("state") == STATES[item["state"]]
    _check_attempts(item, changes)
    _check_last_attempt(item, stream)


def _check_attempts(item: Any, changes: list[Any]) -> None:
    """An attempt begins once, and again only after it was handed back; of each that failed it was told once why."""
    begun = [change["attempt"] for change in changes if change["state"] == "RUNNING"]
    handed_back = [change["attempt"] for change in changes if change.get("reason") == "HANDED_BACK"]
    assert Counter(begun) == Counter(handed_back) + Counter(set(begun)), "an attempt began twice"
    assert begun == sorted(begun)
    assert begun[-1] == item["attempt"]
    for change, then in pairwise(changes):
        if change.get("reason") == "HANDED_BACK":
            assert (change["state"], then["state"], then["attempt"]) == ("QUEUED", "RUNNING", change["attempt"])
    # What the reaper takes back it cannot tell of.
    errors = {error["attempt"]: error["reason"] for error in json.loads(item["errors"])}
    failed = {number: reason for number, reason in errors.items() if number < item["attempt"]}
    told = [change for change in changes if change["state"] == "QUEUED" and change.get("reason") != "HANDED_BACK"]
    assert [(change["attempt"], change["reason"]) for change in told if change["attempt"]] == [
        (number, reason) for number, reason in sorted(failed.items()) if reason != "LEASE_EXPIRED"
    ]


def _check_last_attempt(item: Any, stream: list[Any]) -> None:
    """All that the last attempt said is there, in order; nothing that an earlier one says comes after its begin."""
    bodies = [(event["kind"], json.loads(event["body"])) for event in stream]
    begin = max(place for place, (_, body) in enumerate(bodies) if body.get("state") == "RUNNING")
    said = [body["text"] for kind, body in bodies[begin:] if kind == "execution_log"]
    assert said == [f"attempt {item['attempt']} begins"]
    fractions = [body["fraction"] for kind, body in bodies[begin:] if kind == "execution_progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def _check_meeting(item: Any, met: Any) -> None:
    """Only one that was taken for dead meets its successor: a server so starved that it could not renew its leases.

    Then its fence is what keeps it from doing anything more. Either of the two may come to look later.
    """
    errors = json.loads(item["errors"])
    taken_for_dead = {error["attempt"] for error in errors if error["reason"] == "LEASE_EXPIRED"}
    assert {met["attempt"] - 1, met["attempt"]} & taken_for_dead, f"{item['item_id']} ran twice at once: {dict(met)}"


def _check_effects(item: Any, effects: list[Any]) -> None:
    """No attempt has an effect after the next one began; the last one went all the way, others only if cut off.

    A shift is what an attempt does between two times that it is handed back.
    """
    reasons = {error["attempt"]: error["reason"] for error in json.loads(item["errors"])}
    for one, next_one in pairwise(effects):
        assert one["attempt"] <= next_one["attempt"], "two attempts ran at once"
    for (attempt, _), rows in groupby(effects, lambda row: (row["attempt"], row["shift"])):
        what = [row["what"] for row in rows]
        assert what[0] == "begun", f"attempt {attempt}"
        if what[-1] == "ended" and attempt != item["attempt"]:
            assert reasons[attempt] in CUT_OFF, f"attempt {attempt} succeeded and was repeated"
    last = effects[-1]
    assert last["attempt"] == item["attempt"]
    assert (last["what"] == "ended") == (item["state"] == "SUCCEEDED")


def _by_execution(rows: Iterable[Any]) -> dict[UUID, list[Any]]:
    found = defaultdict[UUID, list[Any]](list)
    for row in rows:
        found[row["execution_id"]].append(row)
    return found
