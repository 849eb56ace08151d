"""Another organization's resource is NOT_FOUND, a key without the scope is PERMISSION_DENIED: for every method."""

from __future__ import annotations

import re
import uuid

import grpc
from google.protobuf.message import Message

from tests.contract import descriptors
from tests.contract.descriptors import Method, name_fields, reference
from tests.contract.samples import put, smallest
from tests.contract.world import Caller, code_of, connect, key_of, reason_of, settle
from tests.fixtures.server import RunningServer


def type_of(method: Method, path: str) -> str:
    """The type of resource that a name field is for."""
    message, found = method.request, ""
    for part in path.split("."):
        field = message.fields_by_name[part]
        found = reference(field) or found
        if field.message_type is not None:
            message = field.message_type
    return found


async def outcome(caller: Caller, method: Method, request: Message) -> tuple[str, str, str]:
    """Status, reason and text of a call; the text without the ids in it."""
    try:
        await caller.call(method, request, timeout=5, enough=1)
    except grpc.aio.AioRpcError as error:
        return code_of(error), reason_of(error), _without_ids(error.details() or "")
    return "OK", "", ""


async def test_every_name_of_another_organization_is_not_found(mallory: Caller, victim: Caller) -> None:
    tried, wrong = 0, []
    for method in descriptors.methods():
        for path in name_fields(method.request):
            if type_of(method, path) == "stationmaster.dev/BackgroundService":
                continue  # of the installation: nobody's, and for operators alone
            request = smallest(method.request, mallory.names)
            put(request, path, victim.names[type_of(method, path)])
            code, reason, text = await outcome(mallory, method, request)
            tried += 1
            if (code, reason) != ("NOT_FOUND", "RESOURCE_NOT_FOUND"):
                wrong.append(f"{method.name} {path}: {code} {reason} {text}")
    assert not wrong, "\n".join(wrong)
    assert tried >= 30


async def test_what_is_somebody_elses_and_what_does_not_exist_answer_alike(mallory: Caller, victim: Caller) -> None:
    wrong = []
    for method in descriptors.methods():
        for path in name_fields(method.request):
            if type_of(method, path) == "stationmaster.dev/BackgroundService":
                continue
            theirs = victim.names[type_of(method, path)]
            answers = []
            for name in (theirs, _nobodys(theirs)):
                request = smallest(method.request, mallory.names)
                put(request, path, name)
                answers.append(await outcome(mallory, method, request))
            if answers[0] != answers[1]:
                wrong.append(f"{method.name} {path}: {answers}")
    assert not wrong, "\n".join(wrong)


def _nobodys(name: str) -> str:
    """A name of the same form that nobody has."""
    if name.startswith("backgroundServices/"):
        return f"{name}-of-nobody"
    parts = name.split("/")
    return "/".join(str(uuid.uuid4()) if part.count("-") == 4 else part.replace("agent-", "nobody-") for part in parts)


def _without_ids(text: str) -> str:
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(agent|nobody)-[0-9a-f]{12}", "ID", text)


async def test_a_key_without_the_scope_is_denied_before_anything_is_read(
    server: RunningServer, operator: Caller, victim: Caller
) -> None:
    wrong = []
    for scope in ("prompts.read", "audit.read"):
        async with connect(server.target, await settle(operator, f"Narrow {scope}", scopes=[scope])) as narrow:
            for method in descriptors.methods():
                if method.scope in ("", scope):
                    continue
                for request in (method.request_class(), smallest(method.request, victim.names)):
                    code, reason, _ = await outcome(narrow, method, request)
                    if (code, reason) != ("PERMISSION_DENIED", "SCOPE_MISSING"):
                        wrong.append(f"{method.name}: {code} {reason}")
    assert not wrong, "\n".join(wrong)


async def test_without_a_key_nothing_is_answered(server: RunningServer, victim: Caller) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        nobody = Caller(channel, "sm_nobody")
        for method in descriptors.methods():
            code, _, _ = await outcome(nobody, method, smallest(method.request, victim.names))
            assert code == "UNAUTHENTICATED", method.name


async def test_a_colleagues_session_is_not_found_by_a_member(
    server: RunningServer, operator: Caller, victim: Caller
) -> None:
    secret = await key_of(victim, victim.names["stationmaster.dev/User"])
    sessions = {"stationmaster.dev/Session", "stationmaster.dev/Turn", "stationmaster.dev/PermissionRequest"}
    async with connect(server.target, secret) as member:
        member.names |= victim.names
        for method in descriptors.methods():
            for path in name_fields(method.request):
                if type_of(method, path) in sessions and method.name.startswith("SessionService."):
                    request = smallest(method.request, victim.names)
                    put(request, path, victim.names[type_of(method, path)])
                    code, _, text = await outcome(member, method, request)
                    assert code == "NOT_FOUND", f"{method.name} {path}: {code} {text}"
