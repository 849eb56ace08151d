"""The trail is written with what it tells of, or before the answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from stationmaster_server.audit.details import MAX_BYTES
from stationmaster_server.audit.model import AuditEntry, AuditEvent, Category, Outcome
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import UnauditedChange
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import NotFound, Unavailable
from stationmaster_server.identity.model import Caller
from stationmaster_server.identity.system import system_caller

from tests.audit.conftest import Server


async def everything(server: Server, caller: Caller) -> list[AuditEvent]:
    """The whole trail of the caller's organization, oldest first."""
    return (await server.trail.list(caller, "", "create_time", PageRequest(1000))).items


async def test_an_event_is_committed_with_its_change(server: Server, caller: Caller) -> None:
    async with server.database.tenant(caller.tenant) as tx:
        entry = AuditEntry("thing.create", "things/1", reason="why not", details={"size": 3})
        event_id = await server.log.write(tx, caller, entry)
        assert tx.audited
    (event,) = await everything(server, caller)
    assert event.id == event_id
    assert (event.action, event.resource, event.reason) == ("thing.create", "things/1", "why not")
    assert (event.outcome, event.category, event.details) == (Outcome.ALLOWED, Category.BUSINESS, {"size": 3})
    assert event.actor == f"users/{caller.tenant.user_id}"
    assert (event.method, event.request_id, event.peer) == ("/tests/Test", "a-request", "ipv4:127.0.0.1:1")


async def test_several_events_of_a_change_are_committed_with_it(server: Server, caller: Caller) -> None:
    entries = [AuditEntry("thing.end", f"things/{n}", details={"text": "é\ud800", "n": n}) for n in range(3)]
    async with server.database.tenant(caller.tenant) as tx:
        await server.log.write_many(tx, [(caller, entry) for entry in entries])
        assert tx.audited
    events = await everything(server, caller)
    assert [(event.action, event.resource, event.details["n"]) for event in events] == [
        ("thing.end", f"things/{n}", n) for n in range(3)
    ]


async def test_a_change_that_is_rolled_back_leaves_no_event(server: Server, caller: Caller) -> None:
    async def fail() -> None:
        async with server.database.tenant(caller.tenant) as tx:
            await server.log.write(tx, caller, AuditEntry("thing.create", "things/1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await everything(server, caller) == []


async def test_a_change_without_an_event_is_not_committed(server: Server, caller: Caller) -> None:
    async def change() -> None:
        async with server.database.tenant(caller.tenant) as tx:
            await tx.execute("UPDATE organizations SET display_name = 'x'")

    with pytest.raises(UnauditedChange):
        await change()


async def test_refusals_are_committed_when_told(server: Server, caller: Caller, stranger: Caller) -> None:
    entry = AuditEntry("thing.read", "things/1", Outcome.DENIED, Category.SECURITY, "SCOPE_MISSING")
    writes = [server.log.write_refusal(who, entry) for who in (caller, stranger) for _ in range(200)]
    await asyncio.gather(*writes)
    for who in (caller, stranger):
        events = await everything(server, who)
        assert len(events) == 200
        assert {(event.outcome, event.reason) for event in events} == {(Outcome.DENIED, "SCOPE_MISSING")}


async def test_refusals_share_commits(server: Server, caller: Caller, database: Database) -> None:
    entry = AuditEntry("thing.read", "things/1", Outcome.DENIED)
    await asyncio.gather(*(server.log.write_refusal(caller, entry) for _ in range(500)))
    async with database.system(autocommit=True) as tx:
        commits = await tx.fetchval("SELECT count(DISTINCT xmin::text) FROM audit_events")
    assert commits <= 5


async def test_a_refusal_that_cannot_be_written_is_not_answered(database: Database, caller: Caller) -> None:
    log = AuditLog(database)
    await log.close()
    with pytest.raises(Unavailable):
        await log.write_refusal(caller, AuditEntry("thing.read", "things/1", Outcome.DENIED))


async def test_texts_that_the_database_cannot_hold_are_written_all_the_same(server: Server, caller: Caller) -> None:
    entry = AuditEntry(
        "thing.read", "things/\0\ud800", Outcome.DENIED, details={"a\0\ud800": ["\0", float("nan"), "\ud800"]}
    )
    await server.log.write_refusal(caller, entry)
    async with server.database.tenant(caller.tenant) as tx:
        await server.log.write(tx, caller, entry)
    assert len(await everything(server, caller)) == 2


async def test_secrets_do_not_reach_the_trail(server: Server, caller: Caller) -> None:
    key = "sm_abcdefghij_" + "s" * 43
    details = {
        "password": "p4ss",
        "nested": {"api_key": "k", "access_token": "t", "max_output_tokens": 5, "list": [{"client_secret": "c"}]},
        "note": f"he used {key} and Bearer abcdefghijk",
        "header": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.sig",
    }
    await server.log.write_refusal(caller, AuditEntry("thing.read", f"things/{key}", details=details, reason=key))
    (event,) = await everything(server, caller)
    text = json.dumps(event.details) + event.resource + event.reason
    for secret in ("p4ss", '"k"', '"t"', '"c"', "sm_abc", "abcdefghijk", "eyJ"):
        assert secret not in text
    assert event.details["nested"]["max_output_tokens"] == 5


async def test_details_stay_below_their_bound(server: Server, caller: Caller) -> None:
    details = {f"key{n}": "ü" * 5000 for n in range(50)} | {"deep": [[[[[[[[[["x"]]]]]]]]]], "small": 1}
    await server.log.write_refusal(caller, AuditEntry("thing.read", "things/1", details=details))
    (event,) = await everything(server, caller)
    assert len(json.dumps(event.details, ensure_ascii=False).encode()) <= MAX_BYTES * 1.05
    assert event.details["truncated"] is True
    assert event.details["small"] == 1


async def test_what_the_system_does_for_somebody_names_both(server: Server, caller: Caller) -> None:
    by_system = system_caller(caller.tenant.organization_id, caller.tenant.user_id)
    async with server.database.tenant(caller.tenant) as tx:
        await server.log.write(tx, by_system, AuditEntry("turn.recover", "turns/1", category=Category.SYSTEM))
    (event,) = await everything(server, caller)
    assert (event.actor, event.on_behalf_of) == ("system", f"users/{caller.tenant.user_id}")


async def test_events_of_others_do_not_exist(server: Server, caller: Caller, stranger: Caller) -> None:
    await server.change(caller)
    (event,) = await everything(server, caller)
    assert (await server.trail.get(caller, event.id)).id == event.id
    with pytest.raises(NotFound):
        await server.trail.get(stranger, event.id)
    assert await everything(server, stranger) == []


async def test_events_are_listed_by_filter_newest_first_in_pages(server: Server, caller: Caller) -> None:
    for number in range(7):
        await server.change(caller, f"thing.{number % 2}")
    seen, page = [], PageRequest(2)
    while True:
        answer = await server.trail.list(caller, 'action = "thing.0" AND category = BUSINESS', "", page)
        seen += answer.items
        if answer.next_cursor is None:
            break
        page = PageRequest(2, answer.next_cursor)
    assert [event.action for event in seen] == ["thing.0"] * 4
    assert sorted(seen, key=lambda event: event.id, reverse=True) == seen
    assert (await server.trail.list(caller, "outcome = DENIED", "", PageRequest(10))).items == []
    moment = seen[1].created_at.isoformat()
    later = await server.trail.list(caller, f'create_time >= "{moment}"', "create_time", PageRequest(10))
    assert later.items[0].created_at >= seen[1].created_at
