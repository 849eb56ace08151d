"""Two organizations on one server: what the one has, the other must not see."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from google.protobuf import struct_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stationmaster.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    credential_pb2,
    credential_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    maintenance_pb2,
    maintenance_pb2_grpc,
    mcp_pb2,
    mcp_pb2_grpc,
    prompt_pb2,
    prompt_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    storage_pb2,
    storage_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)
from stationmaster_server.db.model import Tenant
from stationmaster_server.storage.model import report_name

from tests.contract.descriptors import Method
from tests.fixtures.reports import deposit_at

MCP_SERVER = mcp_pb2.McpStdio(
    command=sys.executable,
    arguments=["-I", "-S", str(Path(__file__).parents[1] / "mcp" / "orderly.py")],
)
"""How the server of `tests/mcp/orderly.py` is run."""
TOOL = '/tool files.write {"path": "a.txt", "content": "a"}'


@dataclass
class Caller:
    """Somebody with a key."""

    channel: grpc.aio.Channel
    secret: str
    names: dict[str, str] = field(default_factory=dict)
    """What it has: one resource's name by the type of resource."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata that its calls carry."""
        return (("authorization", f"Bearer {self.secret}"),)

    async def call(self, method: Method, request: Message, *, timeout: float = 10, enough: int = 3) -> list[Any]:
        """The answers: one, or of a stream the first few."""
        kind = self.channel.unary_stream if method.streams else self.channel.unary_unary
        invoke: Any = kind(
            method.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=method.response_class.FromString,
        )
        started = invoke(request, metadata=self.metadata, timeout=timeout)
        if not method.streams:
            return [await started]
        answers = []
        try:
            async for answer in started:
                answers.append(answer)
                if len(answers) >= enough:
                    break
        finally:
            started.cancel()
        return answers

    def stub(self, kind: Any) -> Any:
        """A generated stub."""
        return kind(self.channel)


def code_of(error: grpc.aio.AioRpcError) -> str:
    """The status's name."""
    return str(error.code().name)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The ErrorReason of a status; empty when it carries none."""
    from_call: Any = rpc_status.from_call
    status = from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


@asynccontextmanager
async def connect(target: str, secret: str) -> AsyncIterator[Caller]:
    """A caller on a channel of its own."""
    async with grpc.aio.insecure_channel(target) as channel:
        yield Caller(channel, secret)


async def settle(operator: Caller, display_name: str, *, scopes: list[str] | None = None) -> str:
    """A new organization with an owner; returns the secret of a key of his."""
    identity: Any = operator.stub(identity_pb2_grpc.IdentityServiceStub)
    organization = await identity.CreateOrganization(
        identity_pb2.CreateOrganizationRequest(
            organization=identity_pb2.Organization(display_name=display_name), owner_display_name="First"
        ),
        metadata=operator.metadata,
    )
    owner = await identity.CreateUser(
        identity_pb2.CreateUserRequest(
            user=identity_pb2.User(display_name="Owner", role=identity_pb2.ROLE_OWNER), organization=organization.name
        ),
        metadata=operator.metadata,
    )
    return await key_of(operator, owner.name, scopes)


async def key_of(caller: Caller, user: str, scopes: list[str] | None = None) -> str:
    """The secret of a new key of a user."""
    identity: Any = caller.stub(identity_pb2_grpc.IdentityServiceStub)
    made = await identity.CreateApiKey(
        identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=user, scopes=scopes or [])),
        metadata=caller.metadata,
    )
    return str(made.secret)


async def furnish(caller: Caller, database_url: str) -> None:
    """Give the caller one resource of every type; what no RPC makes comes into the database by itself."""
    names = caller.names
    identity: Any = caller.stub(identity_pb2_grpc.IdentityServiceStub)
    me = await identity.WhoAmI(identity_pb2.WhoAmIRequest(), metadata=caller.metadata)
    names["stationmaster.dev/Organization"] = me.organization.name
    member = identity_pb2.User(display_name="Member", role=identity_pb2.ROLE_MEMBER)
    user = await identity.CreateUser(identity_pb2.CreateUserRequest(user=member), metadata=caller.metadata)
    names["stationmaster.dev/User"] = user.name
    names["stationmaster.dev/Quota"] = f"{user.name}/quota"
    key = await identity.CreateApiKey(
        identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=user.name)), metadata=caller.metadata
    )
    names["stationmaster.dev/ApiKey"] = key.api_key.name
    agents: Any = caller.stub(agent_pb2_grpc.AgentServiceStub)
    agent_id = f"agent-{uuid.uuid4().hex[:12]}"
    spec = agent_pb2.AgentSpec(model="demo", tools=["files.*"])
    agent = await agents.CreateAgent(
        agent_pb2.CreateAgentRequest(agent_id=agent_id, agent=agent_pb2.Agent(spec=spec)), metadata=caller.metadata
    )
    names["stationmaster.dev/Agent"] = agent.name
    await _furnish_session(caller, agent.name)
    names["stationmaster.dev/StorageUsage"] = f"{user.name}/storageUsage"
    await _furnish_files(caller)
    await _furnish_mcp(caller)
    await _furnish_tasks(caller)
    await _furnish_credentials(caller)
    await _furnish_prompts(caller)
    names["stationmaster.dev/BackgroundService"] = "backgroundServices/task-embedding"
    maintenance: Any = caller.stub(maintenance_pb2_grpc.MaintenanceServiceStub)
    triggered = maintenance_pb2.TriggerOperationRequest(
        service=names["stationmaster.dev/BackgroundService"], operation="embed-task"
    )
    triggered.arguments.update({"task": names["stationmaster.dev/Task"]})
    operation = await maintenance.TriggerOperation(triggered, metadata=caller.metadata)
    names["stationmaster.dev/Operation"] = operation.name
    tenant = Tenant(*(UUID(name.rpartition("/")[2]) for name in (me.organization.name, me.user.name)))
    names["stationmaster.dev/Report"] = report_name((await deposit_at(database_url, tenant)).id)
    audit: Any = caller.stub(audit_pb2_grpc.AuditServiceStub)
    events = await audit.ListAuditEvents(audit_pb2.ListAuditEventsRequest(), metadata=caller.metadata)
    names["stationmaster.dev/AuditEvent"] = events.audit_events[0].name


async def _furnish_session(caller: Caller, agent: str) -> None:
    sessions: Any = caller.stub(session_pb2_grpc.SessionServiceStub)
    session = await sessions.CreateSession(
        session_pb2.CreateSessionRequest(session=session_pb2.Session(agent=agent)), metadata=caller.metadata
    )
    caller.names["stationmaster.dev/Session"] = session.name
    request = session_pb2.SendMessageRequest(session=session.name, text=TOOL, stop_at_permission=True)
    async with asyncio.timeout(20):
        async for batch in sessions.SendMessage(request, metadata=caller.metadata):
            for event in batch.events:
                if event.WhichOneof("payload") == "permission_requested":
                    asked = event.permission_requested.permission_request
                    caller.names["stationmaster.dev/PermissionRequest"] = asked
                    caller.names["stationmaster.dev/Turn"] = event.turn
    caller.names["stationmaster.dev/Message"] = f"{session.name}/messages/1"


async def _furnish_files(caller: Caller) -> None:
    stub: Any = caller.stub(storage_pb2_grpc.StorageServiceStub)
    workspace = caller.names["stationmaster.dev/Session"].replace("sessions/", "workspaces/")
    caller.names["stationmaster.dev/Workspace"] = workspace
    upload = str(uuid.uuid4())
    header = storage_pb2.UploadFileHeader(name=f"{workspace}/files/folder/file.txt")
    messages = [
        storage_pb2.UploadFileRequest(header=header, request_id=upload),
        storage_pb2.UploadFileRequest(data=b"sample", last=True),
    ]
    file = await stub.UploadFile(iter(messages), metadata=caller.metadata)
    beside_header = storage_pb2.UploadFileHeader(name=f"{workspace}/files/beside.txt")
    beside = storage_pb2.UploadFileRequest(header=beside_header, last=True)
    await stub.UploadFile(iter([beside]), metadata=caller.metadata)
    caller.names["stationmaster.dev/File"] = file.name
    caller.names["stationmaster.dev/Upload"] = f"{workspace}/uploads/{upload}"
    archive = await stub.ArchiveWorkspace(storage_pb2.ArchiveWorkspaceRequest(name=workspace), metadata=caller.metadata)
    caller.names["stationmaster.dev/Archive"] = archive.name


def task() -> task_pb2.Task:
    """A task that can be: the demo model is asked something, every year."""
    payload = struct_pb2.Struct()
    payload.update({"model": "demo", "prompt": "Say hello."})
    schedule = task_pb2.Schedule(cron="@yearly")
    return task_pb2.Task(kind="prompt", description="papaya", payload=payload, schedule=schedule)


async def _furnish_tasks(caller: Caller) -> None:
    stub: Any = caller.stub(task_pb2_grpc.TaskServiceStub)
    created = await stub.CreateTask(
        task_pb2.CreateTaskRequest(task_id=f"agent-{uuid.uuid4().hex[:12]}", task=task()), metadata=caller.metadata
    )
    caller.names["stationmaster.dev/Task"] = created.name
    for _ in range(2):
        other = task_pb2.CreateTaskRequest(task_id=f"agent-{uuid.uuid4().hex[:12]}", task=task())
        other_name = (await stub.CreateTask(other, metadata=caller.metadata)).name
        depends = task_pb2.AddDependencyRequest(task=created.name, depends_on=other_name)
        await stub.AddDependency(depends, metadata=caller.metadata)
    execution = await stub.ExecuteTask(task_pb2.ExecuteTaskRequest(name=created.name), metadata=caller.metadata)
    caller.names["stationmaster.dev/Execution"] = execution.name


async def _furnish_credentials(caller: Caller) -> None:
    stub: Any = caller.stub(credential_pb2_grpc.CredentialServiceStub)
    created = await stub.CreateCredential(
        credential_pb2.CreateCredentialRequest(
            credential_id=f"agent-{uuid.uuid4().hex[:12]}", credential=credential_pb2.Credential(), value="first"
        ),
        metadata=caller.metadata,
    )
    caller.names["stationmaster.dev/Credential"] = created.name
    second = credential_pb2.AddCredentialVersionRequest(parent=created.name, value="second")
    added = await stub.AddCredentialVersion(second, metadata=caller.metadata)
    caller.names["stationmaster.dev/CredentialVersion"] = added.name
    for kind in ("stationmaster.dev/User", "stationmaster.dev/Agent"):
        grant = credential_pb2.CredentialGrant(principal=caller.names[kind])
        request = credential_pb2.GrantAccessRequest(parent=created.name, grant=grant)
        granted = await stub.GrantAccess(request, metadata=caller.metadata)
        caller.names["stationmaster.dev/CredentialGrant"] = granted.name


def prompt() -> prompt_pb2.Prompt:
    """A prompt that can be."""
    return prompt_pb2.Prompt(template="Say {{ what | default('hello') }}.")


def experiment(prompt_name: str) -> prompt_pb2.Experiment:
    """An experiment that can be: two variants of one version."""
    variants = [prompt_pb2.ExperimentVariant(variant=name, version=1) for name in ("control", "treatment")]
    return prompt_pb2.Experiment(prompt=prompt_name, label="sample", variants=variants)


async def _furnish_prompts(caller: Caller) -> None:
    stub: Any = caller.stub(prompt_pb2_grpc.PromptServiceStub)
    for _ in range(2):
        request = prompt_pb2.CreatePromptRequest(
            prompt_id=f"agent-{uuid.uuid4().hex[:12]}", prompt=prompt(), labels=["sample"]
        )
        created = await stub.CreatePrompt(request, metadata=caller.metadata)
    caller.names["stationmaster.dev/Prompt"] = created.name
    revised = prompt_pb2.Prompt(name=created.name, template="Say {{ what | default('hello') }}!")
    await stub.UpdatePrompt(prompt_pb2.UpdatePromptRequest(prompt=revised), metadata=caller.metadata)
    for agent in ("", "agents/agent-sample"):
        custom = prompt_pb2.PromptCustomization(template="Please.", agent=agent)
        customized = prompt_pb2.CreatePromptCustomizationRequest(parent=created.name, customization=custom)
        made = await stub.CreatePromptCustomization(customized, metadata=caller.metadata)
    caller.names["stationmaster.dev/PromptCustomization"] = made.name
    for _ in range(2):
        trial = prompt_pb2.CreateExperimentRequest(experiment=experiment(created.name))
        tried = await stub.CreateExperiment(trial, metadata=caller.metadata)
    caller.names["stationmaster.dev/Experiment"] = tried.name


async def _furnish_mcp(caller: Caller) -> None:
    stub: Any = caller.stub(mcp_pb2_grpc.McpServiceStub)
    server = mcp_pb2.McpServer(level=mcp_pb2.MCP_LEVEL_ORGANIZATION, stdio=MCP_SERVER)
    registered = await stub.RegisterMcpServer(
        mcp_pb2.RegisterMcpServerRequest(mcp_server_id=f"agent-{uuid.uuid4().hex[:12]}", mcp_server=server),
        metadata=caller.metadata,
    )
    caller.names["stationmaster.dev/McpServer"] = registered.name
    opened = await stub.OpenMcpSession(mcp_pb2.OpenMcpSessionRequest(server=registered.name), metadata=caller.metadata)
    caller.names["stationmaster.dev/McpSession"] = opened.name
