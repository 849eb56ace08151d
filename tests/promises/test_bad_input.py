"""Whatever is wrong with a request, its caller learns what, where and what to do."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from stationmaster.v1 import agent_pb2, session_pb2

from tests.contract import descriptors
from tests.contract.descriptors import Method, name_fields
from tests.contract.samples import put, smallest
from tests.contract.world import Caller
from tests.promises.refusal import read, refused
from tests.promises.valid import BY_NAME, MUTATIONS, PAGED, invoke, request_for, type_of, value_at

pytestmark = pytest.mark.asyncio(loop_scope="module")
ID = "0199f2a0-0000-7000-8000-000000000000"
FILE = "stationmaster.dev/File"
LIMIT_BYTES = 4 * 1024 * 1024
MALFORMED = (
    "nonsense",
    "{collection}",
    "{collection}/",
    "{collection}/{id}/",
    "/{collection}/{id}",
    "{collection}/{id}/more",
    "others/{id}",
    "{collection}/" + "-" * 36,
    "{collection}/" + ID.upper(),
    "{collection}/../" + ID,
    "{collection}/%",
    "{collection}/\x00",
    "{collection}/é",
    "{collection}/" + "x" * 5000,
)


def malformed(names: dict[str, str], method: Method, path: str) -> list[str]:
    """Names that a field cannot take; a field that may be empty takes the empty one."""
    good = names[type_of(method, path)]
    collection, _, identity = good.partition("/")
    texts = [text.replace("{collection}", collection).replace("{id}", identity) for text in MALFORMED]
    return [text for text in texts if not (type_of(method, path) == FILE and text.endswith("/more"))]  # a path goes on


async def test_a_malformed_name_is_refused_by_the_field_that_has_it(owner: Caller) -> None:
    wrong, tried = [], 0
    for method in descriptors.methods():
        for path in name_fields(method.request):
            for name in malformed(owner.names, method, path):
                request = smallest(method.request, owner.names)
                put(request, path, name)
                tried += 1
                refusal = await refused(owner.call(method, request, timeout=10))
                known = refusal.reason in ("INVALID_NAME", "INVALID_FIELD") and refusal.code == "INVALID_ARGUMENT"
                if not known or path not in refusal.fields:
                    told = refusal.fields if "BadRequest" in refusal.details else refusal.message
                    wrong.append(f"{method.name} {path}={name[:60]!r}: {refusal.code} {refusal.reason} {told}")
    assert not wrong, "\n".join(wrong)
    assert tried > 400


async def test_a_name_that_is_missing_is_asked_for(owner: Caller) -> None:
    wrong = []
    for method in descriptors.methods():
        for path in name_fields(method.request):
            request = smallest(method.request, owner.names)
            if not value_at(request, path):
                continue  # it may be left out
            put(request, path, "")
            refusal = await refused(owner.call(method, request))
            if refusal.code != "INVALID_ARGUMENT" or not any(path.startswith(field) for field in refusal.fields):
                wrong.append(f"{method.name} {path}: {refusal}")
    assert not wrong, "\n".join(wrong)


async def test_an_oversized_message_is_refused_with_the_limit_and_the_connection_lives(owner: Caller) -> None:
    wrong = []
    for method in descriptors.methods():
        request = smallest(method.request, owner.names).SerializeToString()
        padding = b"\xa2\x7d" + bytes([0x80, 0x80, 0x80, 0x02]) + b"x" * LIMIT_BYTES  # field 2004: unknown
        refusal = await refused(raw_call(owner, method, request + padding))
        told = refusal.metadata.get("limit_bytes"), "chunks" in refusal.message
        if (refusal.reason, told) != ("MESSAGE_TOO_LARGE", (str(LIMIT_BYTES), True)):
            wrong.append(f"{method.name}: {refusal}")
    assert not wrong, "\n".join(wrong)
    await invoke(owner, "ListSessions", session_pb2.ListSessionsRequest())


async def raw_call(caller: Caller, method: Method, body: bytes) -> Any:
    kind: Any = caller.channel.unary_stream if method.streams else caller.channel.unary_unary
    call = kind(method.path)(body, metadata=caller.metadata, timeout=20)
    return [answer async for answer in call] if method.streams else await call


async def test_every_wrong_field_of_a_request_is_told_within_the_limit(owner: Caller) -> None:
    spec = agent_pb2.AgentSpec(model="?" * 3000, temperature=9, max_output_tokens=-1)
    spec.tools.extend(f"not a tool {number}" * 20 for number in range(200))
    request = agent_pb2.CreateAgentRequest(agent_id="NO" * 500, agent=agent_pb2.Agent(spec=spec), request_id="none")
    refusal = await refused(owner.call(BY_NAME["CreateAgent"], request))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert {"agent_id", "agent.spec.model", "agent.spec.tools[0]"} <= set(refusal.fields)


async def test_what_exists_is_told_by_its_name(owner: Caller) -> None:
    request = await request_for(owner, BY_NAME["CreateAgent"])
    await owner.call(BY_NAME["CreateAgent"], request)
    refusal = await refused(owner.call(BY_NAME["CreateAgent"], request))
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert refusal.details["ResourceInfo"].resource_name == f"agents/{request.agent_id}"


async def test_what_is_not_there_is_told_by_its_name(owner: Caller) -> None:
    wrong = []
    for method in descriptors.methods():
        for path in name_fields(method.request):
            request = smallest(method.request, owner.names)
            good = owner.names[type_of(method, path)]
            name = "/".join(ID if part.count("-") == 4 else part for part in good.split("/"))
            name = f"{name}-of-nobody" if name.startswith("backgroundServices/") else name
            put(request, path, name.replace("agent-", "nobody-"))
            refusal = await refused(owner.call(method, request))
            named = refusal.code == "NOT_FOUND" and refusal.details["ResourceInfo"].resource_name in refusal.message
            if not named or refusal.reason != "RESOURCE_NOT_FOUND":
                wrong.append(f"{method.name} {path}: {refusal}")
    assert not wrong, "\n".join(wrong)


async def test_a_method_that_nobody_serves_is_told(owner: Caller) -> None:
    for path in ("/stationmaster.v1.SessionService/Nothing", "/nobody.v1.Service/Nothing"):
        call: Any = owner.channel.unary_unary(path)
        try:
            await call(b"", metadata=owner.metadata)
        except grpc.aio.AioRpcError as error:
            refusal = read(error)
            assert (refusal.code, refusal.reason) == ("UNIMPLEMENTED", "UNKNOWN_METHOD")
            assert "reflection" in refusal.message
        else:
            raise AssertionError(f"{path} was answered")


async def test_filters_and_orders_that_cannot_be_read_are_told(owner: Caller) -> None:
    wrong = []
    for method in PAGED:
        for field, text, reason in (
            ("filter", "((", "INVALID_FILTER"),
            ("filter", "nothing = 1", "INVALID_FILTER"),
            ("order_by", "nothing", "INVALID_ORDER_BY"),
            ("order_by", "create_time sideways", "INVALID_ORDER_BY"),
        ):
            if field not in method.request.fields_by_name:
                continue
            request = smallest(method.request, owner.names)
            setattr(request, field, text)
            refusal = await refused(owner.call(method, request))
            if (refusal.code, refusal.reason, refusal.fields) != ("INVALID_ARGUMENT", reason, [field]):
                wrong.append(f"{method.name} {field}={text!r}: {refusal}")
    assert not wrong, "\n".join(wrong)


async def test_a_mask_that_names_what_cannot_be_changed_is_told(owner: Caller) -> None:
    wrong = []
    for method in MUTATIONS:
        if "update_mask" not in method.request.fields_by_name:
            continue
        request = await request_for(owner, method)
        request.update_mask.paths.extend(["name", "nothing"])
        refusal = await refused(owner.call(method, request))
        if (refusal.code, refusal.reason) != ("INVALID_ARGUMENT", "INVALID_UPDATE_MASK"):
            wrong.append(f"{method.name}: {refusal}")
        elif "update_mask" not in refusal.fields or "known:" not in refusal.advice:
            wrong.append(f"{method.name}: {refusal.advice}")
    assert not wrong, "\n".join(wrong)
