"""The trail is complete: every change once, with who, what and which call; every refusal before its caller hears of it.

That no role sees another tenant's trail, or any without a tenant, is shown for every table in
`tests/db/test_row_level_security.py`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from stationmaster.v1 import agent_pb2, audit_pb2, identity_pb2, session_pb2

from tests.contract import descriptors
from tests.contract.descriptors import Method, name_fields
from tests.contract.samples import put, smallest
from tests.contract.world import Caller, code_of, connect, key_of, settle
from tests.fixtures.server import RunningServer
from tests.promises.refusal import Refusal, refused
from tests.promises.valid import BY_NAME, MUTATIONS, SPEC, invoke, nobodys, request_for, unique, value_at
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVERYTHING = 1_000_000
WHO = identity_pb2.WhoAmIRequest()
DENIED, ALLOWED = audit_pb2.AUDIT_OUTCOME_DENIED, audit_pb2.AUDIT_OUTCOME_ALLOWED


class Named(Caller):
    """Gives its calls the request id that it wants."""

    request_id = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The key, and the id of the next call."""
        return (*super().metadata, ("stationmaster-request-id", self.request_id))

    def next(self) -> str:
        """A new id, for the calls that follow."""
        self.request_id = unique("call")
        return self.request_id


def named(caller: Caller) -> Named:
    return Named(caller.channel, caller.secret, caller.names)


async def trail(reader: Caller, request_id: str) -> list[audit_pb2.AuditEvent]:
    """The events of one call, oldest first."""
    request = audit_pb2.ListAuditEventsRequest(filter=f'request_id = "{request_id}"', order_by="create_time")
    return list((await invoke(reader, "ListAuditEvents", request)).audit_events)


async def newest(reader: Caller) -> str:
    return str((await invoke(reader, "ListAuditEvents", audit_pb2.ListAuditEventsRequest())).audit_events[0].name)


_UNNAMED = {
    "TaskService.BatchSubmitExecutions": "executions",
    "CredentialService.ImportEnvironment": "credentials",
}


def resource_of(method: Method, request: Any, answers: list[Any]) -> str:
    """What a call was done to: what it answered with, or what it named."""
    answer = answers[0]
    if method.streams:
        return str(answer.turn)
    if method.name == "AuditService.RecordEvent":
        return str(request.resource)
    if method.name == "IdentityService.CreateApiKey":
        return str(answer.api_key.name)
    if method.name == "StorageService.CleanupArchives":
        return str(answer.sample[0])
    fields = (getattr(request, field, "") for field in ("name", "parent", "task"))
    return str(getattr(answer, "name", "") or next(filter(None, fields), _UNNAMED.get(method.name, "")))


async def test_every_change_is_in_the_trail_once_with_its_method_actor_resource_and_request_id(owner: Caller) -> None:
    me = await invoke(owner, "WhoAmI", WHO)
    caller, wrong = named(owner), []
    for method in MUTATIONS:
        request = await request_for(owner, method)
        request_id = caller.next()
        answers = await caller.call(method, request, enough=EVERYTHING)
        events = [event for event in await trail(owner, request_id) if event.method == method.path]
        # A turn that waits has no worker: its end, which is an event of its own, comes with what ended it.
        events = [event for event in events if event.action != "turn.finish"]
        # An import tells of each credential beside the whole.
        if method.name == "CredentialService.ImportEnvironment":
            events = [event for event in events if event.resource == _UNNAMED[method.name]]
        # A key that the database does not know is noted, and then changed to: two transactions.
        if method.name == "CredentialService.RotateEncryptionKey":
            events = [event for event in events if event.action != "credential.key.add"]
        if len(events) != 1:
            wrong.append(f"{method.name}: {[(event.action, event.resource) for event in events]}")
            continue
        (event,) = events
        got = (event.outcome, event.actor, event.api_key, event.resource)
        if got != (ALLOWED, me.user.name, me.api_key.name, resource_of(method, request, answers)):
            wrong.append(f"{method.name}: {event}")
        if not (event.action and event.category and event.peer and event.HasField("create_time")):
            wrong.append(f"{method.name}: {event}")
    assert not wrong, "\n".join(wrong)


async def test_what_changed_nothing_is_no_change_in_the_trail(owner: Caller) -> None:
    """A repeat, a trial, a read and what was refused because it made no sense."""
    caller, wrong = named(owner), []
    for method in MUTATIONS:
        request = await request_for(owner, method)
        request.request_id = f"00000000-0000-4000-8000-{time.time_ns() % 10**12:012}"
        await owner.call(method, request, enough=EVERYTHING)
        for attempt in others(method, request):
            request_id = caller.next()
            outcome = await code_of_call(caller.call(method, attempt, enough=EVERYTHING))
            if outcome not in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"):
                wrong.append(f"{method.name}: {outcome} {attempt}")
            wrong += [f"{method.name}: {event}" for event in await trail(owner, request_id)]
    assert not wrong, "\n".join(wrong)


async def code_of_call(call: Awaitable[object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return code_of(error)
    return "OK"


def others(method: Method, request: Any) -> Iterator[Any]:
    """The same again; the same as a trial; the same for what is not there; nothing at all."""
    yield request
    if "validate_only" in method.request.fields_by_name:
        trial = copied(request)
        trial.validate_only, trial.request_id = True, ""
        if "agent_id" in method.request.fields_by_name:
            trial.agent_id = unique("trial")
        if "mcp_server_id" in method.request.fields_by_name:
            trial.mcp_server_id = unique("trial")
        if "task_id" in method.request.fields_by_name:
            trial.task_id = unique("trial")
        if "credential_id" in method.request.fields_by_name:
            trial.credential_id = unique("trial")
        yield trial
    for path in name_fields(method.request):
        if value_at(request, path):
            lost = copied(request)
            lost.request_id = ""
            put(lost, path, nobodys(value_at(request, path)))
            yield lost
    yield method.request_class()


def copied(request: Message) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


async def test_a_missing_scope_is_in_the_trail_for_every_method(shared: RunningServer, owner: Caller) -> None:
    wrong = []
    for scope in ("prompts.read", "audit.read"):
        async with connect(shared.target, await settle(owner, f"Narrow {scope}", scopes=[scope])) as narrow:
            me = await invoke(narrow, "WhoAmI", WHO)
            caller = named(narrow)
            async with connect(shared.target, await key_of(owner, me.user.name)) as reader:
                for method in descriptors.methods():
                    if method.scope in ("", scope):
                        continue
                    request_id = caller.next()
                    refusal = await refused(caller.call(method, smallest(method.request, owner.names)))
                    told = await trail(reader, request_id)
                    wrong += untold(told, refusal, method.path, me.user.name, "SCOPE_MISSING")
    assert not wrong, "\n".join(wrong)


def untold(events: list[audit_pb2.AuditEvent], refusal: Refusal, method: str, actor: str, reason: str) -> list[str]:
    """What is wrong with the trail of a refused call."""
    if refusal.reason != reason:
        return [f"{method}: {refusal}"]
    if len(events) != 1:
        return [f"{method}: {len(events)} events for {reason}"]
    (event,) = events
    fine = (event.outcome, event.method, event.actor, event.reason) == (DENIED, method, actor, reason)
    return [] if fine and event.resource and event.peer else [f"{method}: {event}"]


@pytest.mark.parametrize(
    ("quota", "name", "request_of"),
    [
        ("max_concurrent_sessions", "CreateSession", lambda: new_session()),
        ("max_users", "CreateUser", lambda: new_user()),
        ("max_calls_per_hour", "ListSessions", session_pb2.ListSessionsRequest),
    ],
)
async def test_a_quota_that_is_used_up_is_in_the_trail(
    shared: RunningServer, owner: Caller, quota: str, name: str, request_of: Callable[[], Message]
) -> None:
    async with connect(shared.target, await settle(owner, "Frugal")) as frugal:
        me = await invoke(frugal, "WhoAmI", WHO)
        reader_key = await key_of(frugal, me.user.name)
        limit = identity_pb2.SetQuotaRequest()
        limit.quota.name = f"{me.organization.name}/quota"
        setattr(limit.quota, quota, 0)
        await invoke(owner, "SetQuota", limit)
        caller = named(frugal)
        request_id = caller.next()
        refusal = await until(lambda: refusal_or_none(caller, name, request_of()))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert any(quota in violation.description for violation in refusal.details["QuotaFailure"].violations)
        lifted = identity_pb2.SetQuotaRequest(quota=identity_pb2.Quota(name=limit.quota.name))
        await invoke(owner, "SetQuota", lifted)
        async with connect(shared.target, reader_key) as reader:
            events = await until(lambda: trail_or_none(reader, request_id))
        refusals = [event for event in events if event.outcome == DENIED]
        assert not untold(refusals, refusal, BY_NAME[name].path, me.user.name, "QUOTA_EXCEEDED")


def new_session() -> session_pb2.CreateSessionRequest:
    return session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=SPEC))


def new_user() -> identity_pb2.CreateUserRequest:
    user = identity_pb2.User(display_name="One more", role=identity_pb2.ROLE_MEMBER)
    return identity_pb2.CreateUserRequest(user=user)


async def refusal_or_none(caller: Caller, name: str, request: Message) -> Any:
    """A refusal, or None when the call was answered: every server goes by a new quota within a second."""
    try:
        return await refused(invoke(caller, name, request))
    except AssertionError as error:
        if "it was answered" in str(error):
            return None
        raise


async def trail_or_none(reader: Caller, request_id: str) -> Any:
    """The trail, or None while the reader may not call."""
    try:
        return await trail(reader, request_id)
    except Exception:  # noqa: BLE001 - its quota is lifted within a second
        return None


async def test_a_revoked_an_expired_and_a_disabled_users_key_are_in_the_trail(
    shared: RunningServer, owner: Caller
) -> None:
    user = (await invoke(owner, "CreateUser", new_user())).name
    soon = Timestamp(seconds=int(time.time()) + 2)
    for reason in ("CREDENTIALS_REVOKED", "CREDENTIALS_EXPIRED", "USER_DISABLED"):
        wanted = identity_pb2.ApiKey(user=user, expire_time=soon if reason == "CREDENTIALS_EXPIRED" else None)
        made = await invoke(owner, "CreateApiKey", identity_pb2.CreateApiKeyRequest(api_key=wanted))
        if reason == "CREDENTIALS_REVOKED":
            await invoke(owner, "RevokeApiKey", identity_pb2.RevokeApiKeyRequest(name=made.api_key.name))
        if reason == "USER_DISABLED":
            await invoke(owner, "DisableUser", identity_pb2.DisableUserRequest(name=user))
        events, refusal = await shut_out(shared, owner, made.secret)
        assert not untold(events, refusal, BY_NAME["WhoAmI"].path, user, reason)
        assert (events[0].resource, events[0].api_key) == (made.api_key.name, made.api_key.name)


async def shut_out(shared: RunningServer, reader: Caller, secret: str) -> tuple[list[audit_pb2.AuditEvent], Refusal]:
    """The first refusal of a key, and its trail."""
    async with connect(shared.target, secret) as plain:
        caller = named(plain)
        request_id = caller.next()
        refusal: Refusal = await until(lambda: refusal_or_none(caller, "WhoAmI", WHO))
        return await trail(reader, request_id), refusal


async def test_what_a_service_denies_is_in_the_trail(shared: RunningServer, owner: Caller) -> None:
    member = (await invoke(owner, "CreateUser", new_user())).name
    async with connect(shared.target, await key_of(owner, member, ["identity.*"])) as plain:
        caller = named(plain)
        more = identity_pb2.ApiKey(scopes=["sessions.read"])
        for name, request, reason in (
            ("CreateUser", new_user(), "ROLE_INSUFFICIENT"),
            ("DisableUser", identity_pb2.DisableUserRequest(name=member), "ROLE_INSUFFICIENT"),
            ("CreateApiKey", identity_pb2.CreateApiKeyRequest(api_key=more), "SCOPE_MISSING"),
        ):
            request_id = caller.next()
            refusal = await refused(invoke(caller, name, request))
            events = await trail(owner, request_id)
            assert not untold(events, refusal, BY_NAME[name].path, member, reason)


async def test_a_tool_call_that_is_denied_is_in_the_trail(owner: Caller) -> None:
    spec = agent_pb2.AgentSpec(model="demo", tools=["files.*"])
    spec.tool_policies.add(pattern="*", effect=agent_pb2.TOOL_EFFECT_DENY)
    request = session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec))
    session = await invoke(owner, "CreateSession", request)
    text = '/tool files.write {"path": "a.txt", "content": "a"}'
    (first, *_) = await owner.call(
        BY_NAME["SendMessage"], session_pb2.SendMessageRequest(session=session.name, text=text), enough=EVERYTHING
    )
    found = audit_pb2.ListAuditEventsRequest(filter=f'resource = "{first.turn}" AND outcome = DENIED')
    (event,) = (await invoke(owner, "ListAuditEvents", found)).audit_events
    assert "files.write" in str(event.details)


async def test_the_sequences_of_the_trail_have_no_holes_after_all_that(owner: Caller) -> None:
    last = await newest(owner)

    async def placed() -> bool:
        event = await invoke(owner, "GetAuditEvent", audit_pb2.GetAuditEventRequest(name=last))
        return bool(event.sequence)

    await until(placed)
    sequences: list[int] = []
    watch = BY_NAME["WatchAuditEvents"]
    top = (await invoke(owner, "GetAuditEvent", audit_pb2.GetAuditEventRequest(name=last))).sequence
    while not sequences or sequences[-1] < top:
        request = audit_pb2.WatchAuditEventsRequest(after_sequence=sequences[-1] if sequences else 0)
        (batch,) = await owner.call(watch, request, enough=1)
        sequences += [event.sequence for event in batch.audit_events]
    assert sequences == list(range(1, len(sequences) + 1))
