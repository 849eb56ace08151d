"""The same promises through the wire: what is asked for arrives, what is wrong is refused with the field's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from stationmaster.v1 import agent_pb2, event_pb2
from stationmaster.v1 import session_pb2 as pb
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.sessions.permissions import Permissions

from tests.sessions.builders import converse
from tests.sessions.conftest import Rooms
from tests.sessions.served import serving

if TYPE_CHECKING:
    from stationmaster.v1.session_pb2_grpc import SessionServiceAsyncStub

FIRST = PageRequest(1)
DEMO = agent_pb2.AgentSpec(model="demo", runtime=agent_pb2.RUNTIME_MODEL)


@pytest_asyncio.fixture
async def stub(rooms: Rooms, caller: Caller) -> AsyncIterator[SessionServiceAsyncStub]:
    async with serving(
        caller, rooms.services.database, rooms.sessions, rooms.watching, rooms.turns, Permissions(rooms.services)
    ) as stub:
        yield stub


async def create(stub: SessionServiceAsyncStub, **fields: Any) -> pb.Session:
    session = pb.Session(**({"spec": DEMO} | fields))
    return await stub.CreateSession(pb.CreateSessionRequest(session=session))


def reason(error: grpc.aio.AioRpcError) -> str:
    """The ErrorReason of a refusal."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    raise AssertionError("no ErrorInfo")


async def test_a_session_goes_through_its_life(stub: SessionServiceAsyncStub, caller: Caller) -> None:
    created = await create(
        stub,
        display_name="Birds",
        labels={"team": "blue"},
        tool_policies=[agent_pb2.ToolPolicy(pattern="files.*", effect=agent_pb2.TOOL_EFFECT_ASK)],
        limits=agent_pb2.Limits(max_tokens_per_turn=10, max_turn_duration=Duration(seconds=3)),
        idle_timeout=Duration(seconds=90),
    )
    session_id = created.name.removeprefix("sessions/")

    assert created.state == pb.SESSION_STATE_ACTIVE
    assert created.user == f"users/{caller.tenant.user_id}"
    assert created.workspace == f"workspaces/{session_id}"
    assert (created.limits.max_tokens_per_turn, created.limits.max_turn_duration.seconds) == (10, 3)
    assert created.idle_timeout.seconds == 90
    assert created.tool_policies[0].effect == agent_pb2.TOOL_EFFECT_ASK
    assert dict(created.labels) == {"team": "blue"}
    assert created.last_sequence == 1
    assert await stub.GetSession(pb.GetSessionRequest(name=created.name)) == created

    paused = await stub.PauseSession(pb.PauseSessionRequest(name=created.name, reason="lunch"))
    assert (paused.state, paused.state_reason) == (pb.SESSION_STATE_PAUSED, "lunch")
    resumed = await stub.ResumeSession(pb.ResumeSessionRequest(name=created.name))
    assert resumed.state == pb.SESSION_STATE_ACTIVE
    ended = await stub.TerminateSession(pb.TerminateSessionRequest(name=created.name))
    assert ended.state == pb.SESSION_STATE_TERMINATED
    archived = await stub.ArchiveSession(pb.ArchiveSessionRequest(name=created.name))
    assert archived.state == pb.SESSION_STATE_ARCHIVED

    batches = stub.WatchSession(pb.WatchSessionRequest(name=created.name))
    events = [event async for batch in batches for event in batch.events]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert [event.WhichOneof("payload") for event in events] == ["session_created"] + ["session_state_changed"] * 4


async def test_a_session_of_an_agent_names_it(stub: SessionServiceAsyncStub) -> None:
    created = await stub.CreateSession(pb.CreateSessionRequest(session=pb.Session(agent="agents/helper")))

    assert (created.agent, created.spec.text) == ("agents/helper", "help")


@pytest.mark.parametrize(
    "session",
    [pb.Session(), pb.Session(agent="agents/helper", spec=DEMO), pb.Session(spec=DEMO, labels={"Bad Key": "x"})],
    ids=["neither agent nor spec", "both", "a bad label"],
)
async def test_a_wrong_request_is_refused(stub: SessionServiceAsyncStub, session: pb.Session) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateSession(pb.CreateSessionRequest(session=session))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "INVALID_FIELD"


async def test_an_update_follows_its_mask(stub: SessionServiceAsyncStub) -> None:
    created = await create(stub, display_name="a", labels={"x": "1"}, idle_timeout=Duration(seconds=9))
    changed = pb.Session(name=created.name, display_name="b", etag=created.etag)

    by_mask = await stub.UpdateSession(
        pb.UpdateSessionRequest(session=changed, update_mask=FieldMask(paths=["display_name", "idle_timeout"]))
    )
    without = await stub.UpdateSession(
        pb.UpdateSessionRequest(session=pb.Session(name=created.name, labels={"y": "2"}))
    )

    assert (by_mask.display_name, by_mask.HasField("idle_timeout"), dict(by_mask.labels)) == ("b", False, {"x": "1"})
    assert (without.display_name, dict(without.labels)) == ("b", {"y": "2"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpdateSession(pb.UpdateSessionRequest(session=changed))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


@pytest.mark.parametrize("path", ["state", "user", "nothing"])
async def test_an_update_of_what_cannot_be_updated_is_refused(stub: SessionServiceAsyncStub, path: str) -> None:
    created = await create(stub)
    request = pb.UpdateSessionRequest(session=pb.Session(name=created.name), update_mask=FieldMask(paths=[path]))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpdateSession(request)

    assert reason(caught.value) == "INVALID_UPDATE_MASK"


async def test_a_specification_cannot_be_taken_away(stub: SessionServiceAsyncStub) -> None:
    created = await create(stub)
    request = pb.UpdateSessionRequest(session=pb.Session(name=created.name), update_mask=FieldMask(paths=["spec"]))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpdateSession(request)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_illegal_transition_names_both_states_for_programs(stub: SessionServiceAsyncStub) -> None:
    created = await create(stub)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ArchiveSession(pb.ArchiveSessionRequest(name=created.name))

    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
    assert {"ACTIVE", "ARCHIVED"} <= set((caught.value.details() or "").split())


async def test_a_repeated_request_id_answers_the_same_and_another_request_under_it_is_refused(
    stub: SessionServiceAsyncStub,
) -> None:
    request_id = str(uuid4())
    request = pb.CreateSessionRequest(session=pb.Session(spec=DEMO, display_name="a"), request_id=request_id)

    assert await stub.CreateSession(request) == await stub.CreateSession(request)

    request.session.display_name = "b"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateSession(request)
    assert reason(caught.value) == "REQUEST_ID_REUSED"


async def test_a_fork_names_parent_and_message(rooms: Rooms, caller: Caller, stub: SessionServiceAsyncStub) -> None:
    parent = await create(stub, display_name="Birds")
    session = await rooms.sessions.list(caller, "", "", FIRST)
    await converse(rooms.database, caller.tenant, session.items[0].id, "uaua")

    request = pb.ForkSessionRequest(name=parent.name, up_to_message=f"{parent.name}/messages/2")
    child = await stub.ForkSession(request)
    resumed = await stub.ResumeSession(pb.ResumeSessionRequest(name=parent.name, fork=True))

    assert (child.parent_session, child.parent_message) == (parent.name, f"{parent.name}/messages/2")
    assert (child.message_count, child.display_name) == (2, "Birds")
    assert resumed.parent_message == f"{parent.name}/messages/4"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ForkSession(pb.ForkSessionRequest(name=parent.name, up_to_message=f"{child.name}/messages/1"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_lists_page_by_tokens_that_fit_their_request_alone(
    rooms: Rooms, caller: Caller, stub: SessionServiceAsyncStub
) -> None:
    parent = await create(stub)
    session = await rooms.sessions.list(caller, "", "", FIRST)
    await converse(rooms.database, caller.tenant, session.items[0].id, "uauauaua")
    request = pb.ListMessagesRequest(parent=parent.name, page_size=3)
    seen: list[event_pb2.Message] = []
    while True:
        page = await stub.ListMessages(request)
        seen += page.messages
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
        forged = pb.ListMessagesRequest(parent=parent.name, filter="role = USER", page_token=page.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListMessages(forged)
        assert reason(caught.value) == "PAGE_TOKEN_INVALID"

    assert [message.name for message in seen] == [f"{parent.name}/messages/{n}" for n in range(1, 9)]
    found = await stub.SearchMessages(pb.SearchMessagesRequest(query="question", page_size=3))
    assert len(found.hits) == 3
    more = pb.SearchMessagesRequest(query="question", page_size=3, page_token=found.next_page_token)
    assert len((await stub.SearchMessages(more)).hits) == 1
    listed = await stub.ListSessions(pb.ListSessionsRequest(filter="state = ACTIVE"))
    assert [each.name for each in listed.sessions] == [parent.name]


async def test_a_name_of_no_form_is_refused_and_one_of_nobody_is_not_found(
    stub: SessionServiceAsyncStub,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(pb.GetSessionRequest(name="sessions/x"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(pb.GetSessionRequest(name=f"sessions/{uuid4()}"))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    batches = stub.WatchSession(pb.WatchSessionRequest(name=f"sessions/{uuid4()}"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(batches))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
