"""What the state of the system forbids is refused, saying why and what to do; nothing is changed by it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

import pytest
from stationmaster.v1 import agent_pb2, event_pb2, session_pb2, storage_pb2
from stationmaster_server.sessions.model import TRANSITIONS, SessionState

from tests.contract.world import Caller
from tests.promises.refusal import refused
from tests.promises.valid import BY_NAME, MUTATIONS, asked, invoke, make_session, request_for, unique
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_stale_etag_is_refused_and_changes_nothing(owner: Caller) -> None:
    wrong, tried = [], 0
    for method in MUTATIONS:
        if method.descriptor.name.startswith(("Create", "Register")):
            continue
        request = await request_for(owner, method)
        holder = etag_holder(request)
        if holder is None:
            continue
        tried += 1
        before = await current(owner, holder.name)
        assert before.etag
        await change(owner, before)
        newer = await current(owner, holder.name)
        assert newer.etag != before.etag
        holder.etag = before.etag
        refusal = await refused(owner.call(method, request))
        if (refusal.code, refusal.reason) != ("ABORTED", "ETAG_MISMATCH") or "read it again" not in refusal.message:
            wrong.append(f"{method.name}: {refusal}")
        if await current(owner, holder.name) != newer:
            wrong.append(f"{method.name} changed something all the same")
        holder.etag = newer.etag
        await owner.call(method, request)
    assert not wrong, "\n".join(wrong)
    assert tried == 23


def etag_holder(request: Any) -> Any:
    """The message of a request that has the etag: the resource, or the request itself."""
    if "etag" in request.DESCRIPTOR.fields_by_name:
        return request
    for field, value in request.ListFields():
        if field.message_type is not None and "etag" in field.message_type.fields_by_name:
            return value
    return None


GETS = {
    "sessions": "GetSession",
    "agents": "GetAgent",
    "users": "GetUser",
    "organizations": "GetOrganization",
    "quota": "GetQuota",
    "mcpServers": "GetMcpServer",
    "tasks": "GetTask",
    "credentials": "GetCredential",
    "prompts": "GetPrompt",
    "customizations": "GetPromptCustomization",
    "backgroundServices": "GetBackgroundService",
    "files": "StatFile",
    "archives": "GetArchive",
}


async def current(caller: Caller, name: str) -> Any:
    """A resource as it is."""
    parts = name.split("/")
    kind = "quota" if parts[-1] == "quota" else "files" if parts[0] == "workspaces" else parts[-2]
    get = GETS[kind]
    found = await invoke(caller, get, BY_NAME[get].request_class(name=name))
    if get == "GetBackgroundService":  # it goes on meanwhile
        for field in ("metrics", "servers", "state"):
            found.ClearField(field)
    return found


async def change(caller: Caller, resource: Any) -> None:
    """Somebody else's change."""
    kind = type(resource).__name__
    if kind == "File":
        header = storage_pb2.UploadFileHeader(name=resource.name)
        await invoke(caller, "UploadFile", storage_pb2.UploadFileRequest(header=header, last=True))
        return
    if kind == "Archive":
        workspace = resource.name.replace("archives/", "workspaces/")
        again = storage_pb2.ArchiveWorkspaceRequest(name=workspace, overwrite=True)
        await invoke(caller, "ArchiveWorkspace", again)
        return
    update = BY_NAME["SetQuota" if kind == "Quota" else f"Update{kind}"]
    request: Any = update.request_class()
    field = "customization" if kind == "PromptCustomization" else re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    changed = getattr(request, field)
    changed.name = resource.name
    if kind == "Quota":
        changed.max_concurrent_sessions = 7
    elif kind == "PromptCustomization":
        changed.template = unique("changed")
    elif kind == "BackgroundService":
        changed.max_failures = 6
    else:
        changed.display_name = unique("changed")
    await caller.call(update, request)


async def test_a_model_that_is_not_there_is_told(owner: Caller) -> None:
    request = session_pb2.CreateSessionRequest()
    request.session.spec.model = "anthropic:claude"
    refusal = await refused(invoke(owner, "CreateSession", request))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "MODEL_UNAVAILABLE")


async def test_an_answer_given_twice_is_told(owner: Caller) -> None:
    session, turn, request_name = await asked(owner)
    resolve = session_pb2.ResolvePermissionRequestRequest(
        name=request_name, decision=session_pb2.PERMISSION_DECISION_DENY
    )
    busy = session_pb2.SendMessageRequest(session=session, text="x", busy_policy=session_pb2.BUSY_POLICY_REJECT)
    refusal = await refused(owner.call(BY_NAME["SendMessage"], busy))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "SESSION_BUSY")
    await invoke(owner, "ResolvePermissionRequest", resolve)
    refusal = await refused(invoke(owner, "ResolvePermissionRequest", resolve))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PERMISSION_ALREADY_RESOLVED")
    await until(lambda: ended(owner, turn))
    refusal = await refused(invoke(owner, "CancelTurn", session_pb2.CancelTurnRequest(name=turn)))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "TURN_FINISHED")


async def ended(caller: Caller, turn: str) -> bool:
    return (await state_of_turn(caller, turn)) == event_pb2.TURN_STATE_COMPLETED


async def state_of_turn(caller: Caller, turn: str) -> int:
    """How a turn stands."""
    return int((await invoke(caller, "GetTurn", session_pb2.GetTurnRequest(name=turn))).state)


async def test_an_agent_that_sessions_name_is_not_deleted(owner: Caller) -> None:
    name = owner.names["stationmaster.dev/Agent"]
    refusal = await refused(invoke(owner, "DeleteAgent", agent_pb2.DeleteAgentRequest(name=name)))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "AGENT_IN_USE")
    assert "force" in refusal.advice
    await invoke(owner, "GetAgent", agent_pb2.GetAgentRequest(name=name))


S = SessionState
VERBS = {S.PAUSED: "Pause", S.ACTIVE: "Resume", S.TERMINATED: "Terminate", S.ARCHIVED: "Archive"}
"""What callers ask for, by the state that it leads to."""


async def become(caller: Caller, session: str, state: SessionState) -> Any:
    """Ask for a change of state."""
    method = f"{VERBS[state]}Session"
    return await invoke(caller, method, BY_NAME[method].request_class(name=session))


async def active(caller: Caller) -> str:
    return await make_session(caller)


async def processing(caller: Caller) -> str:
    session = await make_session(caller)
    request = session_pb2.SendMessageRequest(session=session, text="/slow 100\n/say 1000")
    await caller.call(BY_NAME["SendMessage"], request, enough=2)
    return session


async def awaiting(caller: Caller) -> str:
    return (await asked(caller))[0]


async def paused(caller: Caller) -> str:
    return str((await become(caller, await make_session(caller), S.PAUSED)).name)


async def terminated(caller: Caller) -> str:
    return str((await become(caller, await make_session(caller), S.TERMINATED)).name)


async def archived(caller: Caller) -> str:
    return str((await become(caller, await terminated(caller), S.ARCHIVED)).name)


WAYS: dict[SessionState, Callable[[Caller], Awaitable[str]]] = {
    S.ACTIVE: active,
    S.PROCESSING: processing,
    S.AWAITING_PERMISSION: awaiting,
    S.PAUSED: paused,
    S.TERMINATED: terminated,
    S.ARCHIVED: archived,
}
"""How a caller brings a session into each state."""


async def state_of(caller: Caller, session: str) -> str:
    found = await invoke(caller, "GetSession", session_pb2.GetSessionRequest(name=session))
    return session_pb2.SessionState.Name(found.state).removeprefix("SESSION_STATE_")


@pytest.mark.parametrize(("current", "wanted"), list(product(S, VERBS)))
async def test_callers_move_sessions_as_the_table_says_and_no_other_way(
    owner: Caller, current: SessionState, wanted: SessionState
) -> None:
    session = await WAYS[current](owner)
    assert await state_of(owner, session) == current
    # A turn that runs or waits frees its session when it ends; a caller cannot.
    if wanted in TRANSITIONS[current] and (wanted is not S.ACTIVE or current is S.PAUSED):
        await become(owner, session, wanted)
        assert await state_of(owner, session) == wanted
        return
    refusal = await refused(become(owner, session, wanted))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ILLEGAL_TRANSITION")
    assert refusal.metadata == {"from": current, "to": wanted}
    assert {current, wanted} <= set(refusal.message.split())
    (violation,) = refusal.details["PreconditionFailure"].violations
    assert (violation.type, violation.subject) == ("SESSION_STATE", session)
    assert all(state in violation.description for state in TRANSITIONS[current])
    assert await state_of(owner, session) == current


@pytest.mark.parametrize("current", [S.PAUSED, S.TERMINATED, S.ARCHIVED])
async def test_a_session_that_takes_no_message_says_what_to_do(owner: Caller, current: SessionState) -> None:
    session = await WAYS[current](owner)
    request = session_pb2.SendMessageRequest(session=session, text="hello")
    refusal = await refused(owner.call(BY_NAME["SendMessage"], request))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "SESSION_CLOSED")
    assert ("ResumeSession" if current is S.PAUSED else "ForkSession") in refusal.advice
    messages = await invoke(owner, "ListMessages", session_pb2.ListMessagesRequest(parent=session))
    assert not messages.messages
