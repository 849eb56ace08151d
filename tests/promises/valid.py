"""For every method that changes something, a request that succeeds, made from its descriptor on new resources."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from stationmaster.v1 import (
    agent_pb2,
    credential_pb2,
    identity_pb2,
    maintenance_pb2,
    mcp_pb2,
    prompt_pb2,
    session_pb2,
    storage_pb2,
    task_pb2,
)

from tests.contract import descriptors
from tests.contract.descriptors import Method, behaviors, message_type, name_fields, reference
from tests.contract.samples import smallest
from tests.contract.world import MCP_SERVER, TOOL, Caller, experiment, prompt, task

BY_NAME = {method.name.rpartition(".")[2]: method for method in descriptors.methods()}
MUTATIONS = [method for method in descriptors.methods() if method.mutates]
PAGED = [method for method in descriptors.methods() if "page_token" in method.request.fields_by_name]
SPEC = agent_pb2.AgentSpec(model="demo", tools=["files.*"])


async def invoke(caller: Caller, name: str, request: Message, **options: Any) -> Any:
    """The one answer to a method, by the method's own name."""
    (answer,) = await caller.call(BY_NAME[name], request, **options)
    return answer


async def request_for(caller: Caller, method: Method) -> Any:
    """A request that will succeed and that equals no other: its resources are new."""
    needed = {type_of(method, path) for path in name_fields(method.request)}
    names = {kind: await _MAKERS[kind](caller) for kind in needed}
    request: Any = smallest(method.request, names)
    _label(request)
    if "agent_id" in request.DESCRIPTOR.fields_by_name:
        request.agent_id = unique("agent")
    if "mcp_server_id" in request.DESCRIPTOR.fields_by_name:
        request.mcp_server_id = unique("agent")
    if "task_id" in request.DESCRIPTOR.fields_by_name:
        request.task_id = unique("agent")
    if "credential_id" in request.DESCRIPTOR.fields_by_name:
        request.credential_id = unique("agent")
    if "prompt_id" in request.DESCRIPTOR.fields_by_name:
        request.prompt_id = unique("agent")
    if prepare := _PREPARATIONS.get(method.descriptor.name):
        await prepare(caller, request)
    return request


def type_of(method: Method, path: str) -> str:
    """The type of resource that a name field is for."""
    message, found = method.request, ""
    for part in path.split("."):
        field = message.fields_by_name[part]
        found = reference(field) or found
        if field.message_type is not None:
            message = field.message_type
    return found


def value_at(message: Any, path: str) -> str:
    """The text of a field by its path, `session.name`."""
    for part in path.split("."):
        message = getattr(message, part)
    return str(message)


def nobodys(name: str) -> str:
    """A name of the same form that nobody has."""
    if name.startswith("backgroundServices/"):
        return f"{name}-of-nobody"
    parts = name.split("/")
    return "/".join(str(uuid.uuid4()) if part.count("-") == 4 else part.replace("agent-", "nobody-") for part in parts)


def unique(prefix: str) -> str:
    """An id that nobody has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def _label(request: Any) -> None:
    """Tell the request apart from its like by a name for people, where its resource has one."""
    for field in request.DESCRIPTOR.fields:
        if field.message_type is None or field.is_repeated or message_type(field).file.package != descriptors.PACKAGE:
            continue
        label = message_type(field).fields_by_name.get("display_name")
        if label is not None and behaviors(field):
            getattr(request, field.name).display_name = unique("label")


async def make_session(caller: Caller) -> str:
    """The name of a new session, of the demo model with tools."""
    session = session_pb2.Session(spec=SPEC, display_name=unique("session"))
    made = await invoke(caller, "CreateSession", session_pb2.CreateSessionRequest(session=session))
    return str(made.name)


async def asked(caller: Caller) -> tuple[str, str, str]:
    """A session whose turn waits for a permission: the names of session, turn and request."""
    session = await make_session(caller)
    request = session_pb2.SendMessageRequest(session=session, text=TOOL, stop_at_permission=True)
    async with asyncio.timeout(20):
        for batch in await caller.call(BY_NAME["SendMessage"], request, enough=1_000_000):
            for event in batch.events:
                if event.HasField("permission_requested"):
                    return session, event.turn, event.permission_requested.permission_request
    raise AssertionError("no permission was asked for")


async def _turn(caller: Caller) -> str:
    return (await asked(caller))[1]


async def _permission_request(caller: Caller) -> str:
    return (await asked(caller))[2]


async def _agent(caller: Caller) -> str:
    request = agent_pb2.CreateAgentRequest(agent_id=unique("agent"), agent=agent_pb2.Agent(spec=SPEC))
    return str((await invoke(caller, "CreateAgent", request)).name)


async def _user(caller: Caller) -> str:
    user = identity_pb2.User(display_name=unique("user"), role=identity_pb2.ROLE_MEMBER)
    return str((await invoke(caller, "CreateUser", identity_pb2.CreateUserRequest(user=user))).name)


async def _api_key(caller: Caller) -> str:
    key = identity_pb2.ApiKey(user=await _user(caller))
    return str((await invoke(caller, "CreateApiKey", identity_pb2.CreateApiKeyRequest(api_key=key))).api_key.name)


async def _quota(caller: Caller) -> str:
    return f"{await _user(caller)}/quota"


async def _organization(caller: Caller) -> str:
    request = identity_pb2.CreateOrganizationRequest(owner_display_name="First")
    request.organization.display_name = unique("organization")
    return str((await invoke(caller, "CreateOrganization", request)).name)


async def _mcp_server(caller: Caller) -> str:
    server = mcp_pb2.McpServer(stdio=MCP_SERVER)
    request = mcp_pb2.RegisterMcpServerRequest(mcp_server_id=unique("agent"), mcp_server=server)
    return str((await invoke(caller, "RegisterMcpServer", request)).name)


async def _mcp_session(caller: Caller) -> str:
    request = mcp_pb2.OpenMcpSessionRequest(server=await _mcp_server(caller))
    return str((await invoke(caller, "OpenMcpSession", request)).name)


async def _message(caller: Caller) -> str:
    return f"{(await asked(caller))[0]}/messages/1"


async def _task(caller: Caller) -> str:
    request = task_pb2.CreateTaskRequest(task_id=unique("agent"), task=task())
    return str((await invoke(caller, "CreateTask", request)).name)


async def _execution(caller: Caller) -> str:
    request = task_pb2.ExecuteTaskRequest(name=await _task(caller))
    return str((await invoke(caller, "ExecuteTask", request)).name)


async def _credential(caller: Caller) -> str:
    request = credential_pb2.CreateCredentialRequest(credential_id=unique("agent"), value="a value")
    request.credential.SetInParent()
    return str((await invoke(caller, "CreateCredential", request)).name)


async def _credential_version(caller: Caller) -> str:
    return f"{await _credential(caller)}/versions/1"


async def _credential_grant(caller: Caller) -> str:
    grant = credential_pb2.CredentialGrant(principal=await _user(caller))
    request = credential_pb2.GrantAccessRequest(parent=await _credential(caller), grant=grant)
    return str((await invoke(caller, "GrantAccess", request)).name)


async def _stored_prompt(caller: Caller) -> str:
    request = prompt_pb2.CreatePromptRequest(prompt_id=unique("agent"), prompt=prompt(), labels=["sample"])
    return str((await invoke(caller, "CreatePrompt", request)).name)


async def _customization(caller: Caller) -> str:
    request = prompt_pb2.CreatePromptCustomizationRequest(parent=await _stored_prompt(caller))
    request.customization.template = "Please."
    return str((await invoke(caller, "CreatePromptCustomization", request)).name)


async def _experiment(caller: Caller) -> str:
    request = prompt_pb2.CreateExperimentRequest(experiment=experiment(await _stored_prompt(caller)))
    return str((await invoke(caller, "CreateExperiment", request)).name)


# One after the other, so that no two requests are alike; none that another test waits for.
_SERVICES = cycle(("transcript-cleanup", "prompt-figures-cleanup", "crawl-cleanup", "mcp-session-cleanup"))


async def _background_service(caller: Caller) -> str:
    return f"backgroundServices/{next(_SERVICES)}"


async def _operation(caller: Caller) -> str:
    request = maintenance_pb2.TriggerOperationRequest(
        service="backgroundServices/task-embedding", operation="embed-task"
    )
    request.arguments.update({"task": await _task(caller)})
    return str((await invoke(caller, "TriggerOperation", request)).name)


async def _workspace(caller: Caller) -> str:
    return (await make_session(caller)).replace("sessions/", "workspaces/")


async def _file(caller: Caller) -> str:
    header = storage_pb2.UploadFileHeader(name=f"{await _workspace(caller)}/files/folder/{unique('file')}")
    return str((await invoke(caller, "UploadFile", storage_pb2.UploadFileRequest(header=header, last=True))).name)


async def _upload(caller: Caller) -> str:
    workspace, upload = await _workspace(caller), str(uuid.uuid4())
    header = storage_pb2.UploadFileHeader(name=f"{workspace}/files/{unique('file')}", size_bytes=10)
    with pytest.raises(grpc.aio.AioRpcError, match="only 0 of the 10 bytes"):
        await invoke(caller, "UploadFile", storage_pb2.UploadFileRequest(header=header, request_id=upload))
    return f"{workspace}/uploads/{upload}"


async def _archive(caller: Caller) -> str:
    request = storage_pb2.ArchiveWorkspaceRequest(name=await _workspace(caller))
    return str((await invoke(caller, "ArchiveWorkspace", request)).name)


async def _usage(caller: Caller) -> str:
    return f"{await _user(caller)}/storageUsage"


_MAKERS: Mapping[str, Callable[[Caller], Awaitable[str]]] = {
    "stationmaster.dev/Session": make_session,
    "stationmaster.dev/Turn": _turn,
    "stationmaster.dev/PermissionRequest": _permission_request,
    "stationmaster.dev/Message": _message,
    "stationmaster.dev/Agent": _agent,
    "stationmaster.dev/User": _user,
    "stationmaster.dev/ApiKey": _api_key,
    "stationmaster.dev/Quota": _quota,
    "stationmaster.dev/Organization": _organization,
    "stationmaster.dev/McpServer": _mcp_server,
    "stationmaster.dev/McpSession": _mcp_session,
    "stationmaster.dev/Task": _task,
    "stationmaster.dev/Execution": _execution,
    "stationmaster.dev/Credential": _credential,
    "stationmaster.dev/CredentialVersion": _credential_version,
    "stationmaster.dev/CredentialGrant": _credential_grant,
    "stationmaster.dev/Prompt": _stored_prompt,
    "stationmaster.dev/PromptCustomization": _customization,
    "stationmaster.dev/Experiment": _experiment,
    "stationmaster.dev/BackgroundService": _background_service,
    "stationmaster.dev/Operation": _operation,
    "stationmaster.dev/Workspace": _workspace,
    "stationmaster.dev/File": _file,
    "stationmaster.dev/Upload": _upload,
    "stationmaster.dev/Archive": _archive,
    "stationmaster.dev/StorageUsage": _usage,
}


async def _pause(caller: Caller, request: Any) -> None:
    await invoke(caller, "PauseSession", session_pb2.PauseSessionRequest(name=request.name))


async def _terminate(caller: Caller, request: Any) -> None:
    await invoke(caller, "TerminateSession", session_pb2.TerminateSessionRequest(name=request.name))


async def _limit(caller: Caller, request: Any) -> None:
    request.quota.max_concurrent_sessions = 5


async def _own_specification(caller: Caller, request: Any) -> None:
    request.session.spec.CopyFrom(SPEC)


async def _stdio(caller: Caller, request: Any) -> None:
    request.mcp_server.stdio.CopyFrom(MCP_SERVER)


async def _echo(caller: Caller, request: Any) -> None:
    request.tool = "echo"
    request.arguments.update({"id": unique("call")})


async def _prompt(caller: Caller, request: Any) -> None:
    name = request.task.display_name
    request.task.CopyFrom(task())
    request.task.display_name = name


async def _pause_task(caller: Caller, request: Any) -> None:
    await invoke(caller, "PauseTask", task_pb2.PauseTaskRequest(name=request.name))


async def _other_task(caller: Caller, request: Any) -> None:
    request.depends_on = await _task(caller)


async def _dependency(caller: Caller, request: Any) -> None:
    await _other_task(caller, request)
    added = task_pb2.AddDependencyRequest(task=request.task, depends_on=request.depends_on)
    await invoke(caller, "AddDependency", added)


async def _spec(caller: Caller, request: Any) -> None:
    request.execution.kind = "prompt"
    request.execution.payload.update({"model": "demo", "prompt": unique("prompt")})


async def _specs(caller: Caller, request: Any) -> None:
    del request.executions[:]
    spec = request.executions.add(kind="prompt")
    spec.payload.update({"model": "demo", "prompt": unique("prompt")})


async def _failed(caller: Caller, request: Any) -> None:
    spec = task_pb2.ExecutionSpec(kind="prompt")
    spec.payload.update({"agent": "nobody", "prompt": "Hello?"})
    submitted = await invoke(caller, "SubmitExecution", task_pb2.SubmitExecutionRequest(execution=spec))
    watched = task_pb2.WatchExecutionRequest(name=submitted.name)
    await caller.call(BY_NAME["WatchExecution"], watched, enough=1_000_000, timeout=30)
    request.name = submitted.name


async def _past(caller: Caller, request: Any) -> None:
    request.start_time.FromJsonString("2020-01-01T00:00:00Z")
    request.end_time.FromJsonString("2022-01-01T00:00:00Z")


async def _value(caller: Caller, request: Any) -> None:
    request.value = unique("value")


async def _delete_credential(caller: Caller, request: Any) -> None:
    await invoke(caller, "DeleteCredential", credential_pb2.DeleteCredentialRequest(name=request.name))


async def _principal(caller: Caller, request: Any) -> None:
    request.grant.principal = await _user(caller)


async def _new_key(caller: Caller, request: Any) -> None:
    request.key_id, request.make_new = unique("key"), True


async def _variables(caller: Caller, request: Any) -> None:
    request.variables[unique("NAME").replace("-", "_")] = "a value"


async def _first_version(caller: Caller, request: Any) -> None:
    request.version = 1


async def _start(caller: Caller, request: Any) -> None:
    await invoke(caller, "StartExperiment", prompt_pb2.StartExperimentRequest(name=request.name))


async def _variants(caller: Caller, request: Any) -> None:
    name = request.experiment.display_name
    request.experiment.CopyFrom(experiment(request.experiment.prompt))
    request.experiment.display_name = name


async def _that_archive(caller: Caller, request: Any) -> None:
    request.filter = f'session = "{(await _archive(caller)).replace("archives/", "sessions/")}"'


async def _last(caller: Caller, request: Any) -> None:
    request.last = True


async def _action(caller: Caller, request: Any) -> None:
    request.action = "custom.sample"
    request.resource = unique("thing")


async def _run(caller: Caller, request: Any) -> None:
    request.operation = "run"


async def _max_failures(caller: Caller, request: Any) -> None:
    request.background_service.max_failures = random.randint(1, 900)


_PREPARATIONS: Mapping[str, Callable[[Caller, Any], Awaitable[None]]] = {
    "RecordEvent": _action,
    "TriggerOperation": _run,
    "UpdateBackgroundService": _max_failures,
    "UploadFile": _last,
    "CleanupArchives": _that_archive,
    "ResumeSession": _pause,
    "ArchiveSession": _terminate,
    "SetQuota": _limit,
    "CreateSession": _own_specification,
    "RegisterMcpServer": _stdio,
    "CallTool": _echo,
    "CreateTask": _prompt,
    "ResumeTask": _pause_task,
    "AddDependency": _other_task,
    "RemoveDependency": _dependency,
    "SubmitExecution": _spec,
    "BatchSubmitExecutions": _specs,
    "RetryExecution": _failed,
    "BackfillTask": _past,
    "CreateCredential": _value,
    "AddCredentialVersion": _value,
    "RotateCredential": _value,
    "UndeleteCredential": _delete_credential,
    "GrantAccess": _principal,
    "RotateEncryptionKey": _new_key,
    "ImportEnvironment": _variables,
    "SetPromptLabel": _first_version,
    "CreateExperiment": _variants,
    "StopExperiment": _start,
    "ConcludeExperiment": _start,
}
"""What a method needs that its descriptor does not tell."""
