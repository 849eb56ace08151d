"""ListSessions and ListMessages: what is seen, in which order, and that pages bring each item once."""

from __future__ import annotations

from typing import Any

import pytest
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.sessions.model import Message, NewSession, Session

from tests.fixtures.database import make_tenant
from tests.sessions.builders import SPEC, colleague, converse, insert, make_caller
from tests.sessions.conftest import Rooms


async def names(
    rooms: Rooms, caller: Caller, filter_text: str = "", order_by: str = "display_name", *, archived: bool = False
) -> list[str]:
    page = await rooms.sessions.list(caller, filter_text, order_by, PageRequest(100), archived=archived)
    return [session.display_name for session in page.items]


async def create(rooms: Rooms, caller: Caller, *display_names: str, **fields: Any) -> list[Session]:
    new = [NewSession(display_name=name, **({"spec": SPEC} | fields)) for name in display_names]
    return [await rooms.sessions.create(caller, each) for each in new]


async def test_callers_list_their_own_sessions_and_admins_all_of_the_organization(rooms: Rooms, caller: Caller) -> None:
    other = make_caller(colleague(caller.tenant))
    foreign = make_caller(await make_tenant(rooms.database))
    for somebody, name in ((caller, "mine"), (other, "theirs"), (foreign, "foreign")):
        await create(rooms, somebody, name)

    assert await names(rooms, caller) == ["mine"]
    assert await names(rooms, make_caller(caller.tenant, Role.VIEWER)) == ["mine"]
    assert await names(rooms, make_caller(caller.tenant, Role.ADMIN)) == ["mine", "theirs"]


async def test_archived_sessions_are_hidden_unless_asked_for(rooms: Rooms, caller: Caller) -> None:
    _, second = await create(rooms, caller, "a", "b")
    await rooms.sessions.terminate(caller, second.id)
    assert await names(rooms, caller) == ["a", "b"]

    await rooms.sessions.archive(caller, second.id)

    assert await names(rooms, caller) == ["a"]
    assert await names(rooms, caller, archived=True) == ["a", "b"]


async def test_the_newest_comes_first_by_default(rooms: Rooms, caller: Caller) -> None:
    await create(rooms, caller, "a", "b", "c")

    assert await names(rooms, caller, order_by="") == ["c", "b", "a"]
    assert await names(rooms, caller, order_by="create_time") == ["a", "b", "c"]


async def test_a_session_in_a_list_is_the_session_that_get_returns(rooms: Rooms, caller: Caller) -> None:
    (created,) = await create(rooms, caller, "a")
    await converse(rooms.database, caller.tenant, created.id, "ua")

    page = await rooms.sessions.list(caller, "", "", PageRequest(10))

    assert page.items == [await rooms.sessions.get(caller, created.id)]


async def test_every_field_of_the_contract_can_be_filtered_by(rooms: Rooms, caller: Caller) -> None:
    plain, paused = await create(rooms, caller, "plain", "paused")
    await create(rooms, caller, "helped", agent_id="helper", spec=None)
    await create(rooms, caller, "labelled", labels={"team": "blue"})
    await rooms.sessions.pause(caller, paused.id)
    await rooms.sessions.fork(caller, plain.id, display_name="forked")

    assert await names(rooms, caller, "state = PAUSED") == ["paused"]
    assert await names(rooms, caller, 'agent = "agents/helper"') == ["helped"]
    assert await names(rooms, caller, f'parent_session = "sessions/{plain.id}"') == ["forked"]
    assert await names(rooms, caller, 'labels.team = "blue"') == ["labelled"]
    assert await names(rooms, caller, f'user = "users/{caller.tenant.user_id}" AND display_name : "la"') == [
        "labelled",
        "plain",
    ]
    assert await names(rooms, caller, 'create_time > "2099-01-01T00:00:00Z"') == []
    assert len(await names(rooms, caller, 'update_time > "2020-01-01T00:00:00Z"')) == 5


@pytest.mark.parametrize("order_by", ["state", "agent", "user", "display_name desc", "parent_session", "update_time"])
async def test_every_field_of_the_contract_can_be_ordered_by(rooms: Rooms, caller: Caller, order_by: str) -> None:
    first, *_ = await create(rooms, caller, "a", "b", "c")
    await rooms.sessions.fork(caller, first.id, display_name="d")

    seen = await all_pages(rooms, caller, order_by)

    assert sorted(session.display_name for session in seen) == ["a", "b", "c", "d"]


async def all_pages(rooms: Rooms, caller: Caller, order_by: str) -> list[Session]:
    seen: list[Session] = []
    cursor: tuple[Any, ...] | None = None
    while True:
        page: Page[Session] = await rooms.sessions.list(caller, "", order_by, PageRequest(2, cursor))
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            return seen


@pytest.mark.parametrize(
    ("filter_text", "order_by", "reason"),
    [("colour = 1", "", Reason.INVALID_FILTER), ("", "labels", Reason.INVALID_ORDER_BY)],
)
async def test_an_unknown_field_is_refused(
    rooms: Rooms, caller: Caller, filter_text: str, order_by: str, reason: Reason
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await rooms.sessions.list(caller, filter_text, order_by, PageRequest(10))

    assert caught.value.reason is reason


async def test_pages_bring_each_session_once_while_others_are_created(rooms: Rooms, caller: Caller) -> None:
    for _ in range(9):
        await insert(rooms.database, caller.tenant)
    there = {session.id for session in (await rooms.sessions.list(caller, "", "", PageRequest(100))).items}

    seen: list[Session] = []
    cursor: tuple[Any, ...] | None = None
    while True:
        page = await rooms.sessions.list(caller, "", "", PageRequest(2, cursor))
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        await insert(rooms.database, caller.tenant)

    assert len(seen) == 9
    assert {session.id for session in seen} == there


async def all_messages(
    rooms: Rooms, caller: Caller, session: Session, order_by: str = "", filter_text: str = ""
) -> list[Message]:
    seen: list[Message] = []
    cursor: tuple[Any, ...] | None = None
    while True:
        page = await rooms.sessions.list_messages(caller, session.id, filter_text, order_by, PageRequest(3, cursor))
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            return seen


async def test_messages_are_listed_oldest_first_or_newest_first(rooms: Rooms, caller: Caller) -> None:
    (session,) = await create(rooms, caller, "a")
    stored = await converse(rooms.database, caller.tenant, session.id, "uauctaua")

    assert await all_messages(rooms, caller, session) == stored
    assert await all_messages(rooms, caller, session, "create_time desc") == stored[::-1]


async def test_messages_are_filtered_by_role_turn_and_time(rooms: Rooms, caller: Caller) -> None:
    (session,) = await create(rooms, caller, "a")
    stored = await converse(rooms.database, caller.tenant, session.id, "uauctaua")

    of_user = await all_messages(rooms, caller, session, filter_text="role = USER")
    assert of_user == [each for each in stored if each.role == "USER"]
    assert await all_messages(rooms, caller, session, filter_text='create_time < "2020-01-01T00:00:00Z"') == []
    assert await all_messages(rooms, caller, session, filter_text='turn = "sessions/x/turns/y"') == []


async def test_messages_cannot_be_ordered_by_anything_else(rooms: Rooms, caller: Caller) -> None:
    (session,) = await create(rooms, caller, "a")

    with pytest.raises(InvalidArgument) as caught:
        await rooms.sessions.list_messages(caller, session.id, "", "role", PageRequest(10))

    assert caught.value.reason is Reason.INVALID_ORDER_BY
