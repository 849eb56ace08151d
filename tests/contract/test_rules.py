"""The rules of the contract, checked by walking the descriptors: a new method obeys them or is named here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from buf.validate import validate_pb2
from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from grpc_tools import protoc
from stationmaster_server.wire.rules import of_pattern

from tests.contract import descriptors
from tests.contract.descriptors import Method, behaviors, message_type, option, reference, rules

ROOT = Path(__file__).parents[2]
METHODS = descriptors.methods()
LISTS = [method for method in METHODS if method.descriptor.name.startswith(("List", "Search"))]
UPDATES = [method for method in METHODS if method.descriptor.name.startswith(("Update", "SetQuota"))]
WATCHES = [method for method in METHODS if method.descriptor.name.startswith("Watch")]
DOWNLOADS = [method for method in METHODS if method.descriptor.name.startswith("Download")]
ORDERED_BY_NAME = {"AgentService.ListModels", "McpService.ListTools", "McpService.ListResources"} | {
    "McpService.ListMcpPrompts",
    "StorageService.ListFiles",
}
"""Lists of what is not in the database: of one order."""
VALIDATE_ONLY = {"AgentService.CreateAgent", "AgentService.UpdateAgent", "IdentityService.SetQuota"} | {
    "McpService.RegisterMcpServer",
    "McpService.UpdateMcpServer",
    "TaskService.CreateTask",
    "TaskService.UpdateTask",
    "CredentialService.CreateCredential",
    "CredentialService.UpdateCredential",
    "CredentialService.ImportEnvironment",
    "PromptService.CreatePrompt",
    "PromptService.UpdatePrompt",
}


STATES = {"MaintenanceService.WatchBackgroundServices", "MaintenanceService.WatchSystemStatus"}
"""Watches of how something is now: nothing in them can be missed, so that nothing has to be resumed."""


STREAMS = [m for m in METHODS if m.streams and m not in DOWNLOADS and m.name not in STATES]


def by_name(method: Method) -> str:
    return method.name


def fields(message: Descriptor) -> dict[str, FieldDescriptor]:
    return dict(message.fields_by_name)


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The leading comment of every method, by `Service.Method`."""
    out = tmp_path_factory.mktemp("descriptors") / "all.binpb"
    protos = sorted(str(path) for path in (ROOT / "protos/stationmaster").rglob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    arguments = [
        f"-I{ROOT / 'protos'}",
        f"-I{include}",
        "--include_source_info",
        f"--descriptor_set_out={out}",
        *protos,
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
    found = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        for location in file.source_code_info.location:
            if len(location.path) == 4 and location.path[0] == 6 and location.path[2] == 2:
                service = file.service[location.path[1]]
                found[f"{service.name}.{service.method[location.path[3]].name}"] = location.leading_comments
    return found


def test_the_contract_has_the_methods_that_the_design_names() -> None:
    names = {method.name for method in METHODS}
    assert {
        "SessionService.SendMessage",
        "SessionService.WatchSession",
        "SessionService.ResolvePermissionRequest",
        "AgentService.ListModels",
        "IdentityService.WhoAmI",
        "AuditService.WatchAuditEvents",
    } <= names
    assert len([name for name in names if name.startswith("SessionService.")]) == 18
    assert len([name for name in names if name.startswith("IdentityService.")]) == 16
    assert len([name for name in names if name.startswith("AuditService.")]) == 9
    assert len([name for name in names if name.startswith("McpService.")]) == 16
    assert len([name for name in names if name.startswith("TaskService.")]) == 24
    assert len([name for name in names if name.startswith("StorageService.")]) == 20
    assert len([name for name in names if name.startswith("CredentialService.")]) == 18
    assert len([name for name in names if name.startswith("PromptService.")]) == 24


@pytest.mark.parametrize("enum", list(descriptors.enums()), ids=lambda enum: enum.full_name)
def test_every_enum_starts_with_unspecified(enum: EnumDescriptor) -> None:
    assert enum.values[0].number == 0
    assert enum.values[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_every_rpc_has_its_own_request_message(method: Method) -> None:
    assert method.request.name == f"{method.descriptor.name}Request"
    users = [other.name for other in METHODS if other.request is method.request]
    assert users == [method.name]


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_every_rpc_says_its_errors(method: Method, comments: dict[str, str]) -> None:
    assert "Errors:" in comments[method.name]


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_every_rpc_but_whoami_needs_a_scope(method: Method) -> None:
    assert bool(method.scope) is (method.name != "IdentityService.WhoAmI")
    if method.scope:
        writes = not method.scope.endswith(".read")
        assert writes is method.mutates, "a scope that ends with .read belongs to methods without side effects"


@pytest.mark.parametrize("method", [m for m in METHODS if m.mutates], ids=by_name)
def test_every_mutation_takes_a_request_id(method: Method) -> None:
    assert rules(fields(method.request)["request_id"]).string.uuid


@pytest.mark.parametrize("method", [m for m in METHODS if not m.mutates], ids=by_name)
def test_no_read_takes_a_request_id(method: Method) -> None:
    assert "request_id" not in fields(method.request)


@pytest.mark.parametrize("method", LISTS, ids=by_name)
def test_every_list_is_paged(method: Method) -> None:
    request = fields(method.request)
    assert rules(request["page_size"]).int32.gte == 0
    assert rules(request["page_token"]).string.max_len > 0
    assert "next_page_token" in fields(method.descriptor.output_type)
    if method.descriptor.name.startswith("List"):
        assert rules(request["filter"]).string.max_len > 0
        assert "order_by" in request or method.name in ORDERED_BY_NAME


@pytest.mark.parametrize("method", UPDATES, ids=by_name)
def test_every_update_has_a_mask_and_an_etag(method: Method) -> None:
    request = fields(method.request)
    assert message_type(request["update_mask"]).full_name == "google.protobuf.FieldMask"
    resource = next(field for field in method.request.fields if reference(field))
    assert "etag" in fields(message_type(resource))


@pytest.mark.parametrize("method", [m for m in METHODS if m.name in VALIDATE_ONLY], ids=by_name)
def test_creates_and_updates_of_agents_and_quotas_can_be_tried(method: Method) -> None:
    assert fields(method.request)["validate_only"].type == FieldDescriptor.TYPE_BOOL


@pytest.mark.parametrize("method", DOWNLOADS, ids=by_name)
def test_every_download_resumes_at_an_offset(method: Method) -> None:
    response = fields(method.descriptor.output_type)
    assert rules(fields(method.request)["offset"]).int64.gte == 0
    assert response["offset"].type == FieldDescriptor.TYPE_INT64
    assert response["data"].type == FieldDescriptor.TYPE_BYTES


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.streams and m not in DOWNLOADS and m.name not in STATES], ids=by_name
)
def test_every_stream_carries_batches_and_a_cursor(method: Method) -> None:
    response = fields(method.descriptor.output_type)
    assert any(field.is_repeated for field in response.values())
    assert response["last_sequence"].type == FieldDescriptor.TYPE_UINT64


@pytest.mark.parametrize("method", [m for m in WATCHES if m.name not in STATES], ids=by_name)
def test_every_watch_resumes_after_a_sequence(method: Method) -> None:
    assert fields(method.request)["after_sequence"].type == FieldDescriptor.TYPE_UINT64


@pytest.mark.parametrize("message", list(descriptors.messages()), ids=lambda message: message.full_name)
def test_what_only_the_server_sets_is_marked(message: Descriptor) -> None:
    resource = option(message, resource_pb2.resource)
    if not resource.type:
        return
    assert field_behavior_pb2.IDENTIFIER in behaviors(fields(message)["name"])
    for name in ("create_time", "update_time", "uid", "state"):
        if name in fields(message):
            assert field_behavior_pb2.OUTPUT_ONLY in behaviors(fields(message)[name]), name


@pytest.mark.parametrize("message", list(descriptors.messages()), ids=lambda message: message.full_name)
def test_what_validation_requires_is_marked_as_required(message: Descriptor) -> None:
    for field in message.fields:
        rule = rules(field)
        needed = rule.required or (rule.string.min_len > 0 and not rule.ignore) or 0 in rule.enum.not_in
        if needed:
            assert field_behavior_pb2.REQUIRED in behaviors(field), field.full_name


@pytest.mark.parametrize("message", list(descriptors.messages()), ids=lambda message: message.full_name)
def test_every_string_and_list_that_a_caller_sends_is_bounded(message: Descriptor) -> None:
    if not _is_input(message):
        return
    for field in message.fields:
        if field_behavior_pb2.OUTPUT_ONLY in behaviors(field):
            continue
        rule = rules(field)
        if field.is_repeated:
            assert rule.repeated.max_items or rule.map.max_pairs, field.full_name
        elif field.type == FieldDescriptor.TYPE_STRING:
            bounded = rule.string.max_len or rule.string.max_bytes or rule.string.pattern or rule.string.uuid
            assert bounded or field_behavior_pb2.IDENTIFIER in behaviors(field), field.full_name


def _is_input(message: Descriptor) -> bool:
    wanted = {method.request.full_name for method in METHODS}
    wanted |= {
        f"stationmaster.v1.{name}"
        for name in (
            "Session",
            "Agent",
            "AgentSpec",
            "ToolPolicy",
            "User",
            "ApiKey",
            "Quota",
            "McpServer",
            "McpStdio",
            "McpHttp",
            "Credential",
            "CredentialGrant",
            "Prompt",
            "PromptRule",
            "PromptCustomization",
            "Experiment",
            "ExperimentVariant",
        )
    }
    return message.full_name in wanted


def test_secrets_are_redacted_in_text() -> None:
    secrets = [
        field
        for message in descriptors.messages()
        for field in message.fields
        if field.name in ("secret", "value", "password")
    ]
    assert secrets
    assert all(field.GetOptions().debug_redact for field in secrets)


def patterns(of_field: validate_pb2.FieldRules) -> Iterator[str]:
    """Of a text, of the items of a list, of the keys and values of a map."""
    if of_field.string.pattern:
        yield of_field.string.pattern
    inside = {"repeated": [of_field.repeated.items], "map": [of_field.map.keys, of_field.map.values]}
    for each in inside.get(of_field.WhichOneof("type") or "", ()):
        yield from patterns(each)


def test_what_a_pattern_refuses_is_told_in_words() -> None:
    found = {
        pattern: of_pattern(pattern)
        for message in descriptors.messages()
        for field in message.fields
        for pattern in patterns(rules(field))
    }
    assert len(found) > 50
    assert [pattern for pattern, words in found.items() if not words or "]{" in words or "^" in words] == []


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_names_of_resources_are_checked_before_anything_is_read(method: Method) -> None:
    for field in method.request.fields:
        if reference(field) and field.type == FieldDescriptor.TYPE_STRING:
            assert rules(field).string.pattern.startswith("^"), field.full_name
