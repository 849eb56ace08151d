"""After every method was used, rightly and wrongly, no marked secret is anywhere but where it was asked for."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import httpx2
import psutil
import pytest
from google.protobuf.message import Message
from stationmaster.v1 import agent_pb2, agent_pb2_grpc, audit_pb2, audit_pb2_grpc, identity_pb2, identity_pb2_grpc
from stationmaster.v1 import credential_pb2 as pb
from stationmaster.v1.credential_pb2_grpc import CredentialServiceStub

from tests.contract import descriptors
from tests.fixtures.server import StartServer
from tests.waiting import until

MARK = "MARKED7SECRET"
METHODS = {one.descriptor.name for one in descriptors.methods() if one.name.startswith("CredentialService.")}


def marked() -> str:
    """A secret that is found wherever it is."""
    return f"{MARK}-{uuid4().hex}"


class Collector:
    """Takes traces as an OpenTelemetry collector does, and keeps their bytes."""

    def __init__(self) -> None:
        self.seen = b""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address."""

        async def export(request: bytes, context: Any) -> bytes:
            self.seen += request
            return b""

        handlers: dict[str, Any] = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await server.stop(0)


class Exercise:
    """Calls, and what they were answered: all of it but what AccessCredential hands out."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = CredentialServiceStub(channel)
        self.answers: list[str] = []
        self.used: set[str] = set()
        self.handed_out: list[str] = []

    async def __call__(self, method: str, request: Message) -> Any:
        """Call; an error is an answer too."""
        self.used.add(method)
        try:
            answer = await getattr(self.stub, method)(request)
        except grpc.aio.AioRpcError as error:
            self.answers.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
            return None
        if method == "AccessCredential":
            self.handed_out.append(answer.value)
        else:
            self.answers.append(f"{answer} {answer.SerializeToString()!r}")
        return answer


async def use_everything(do: Exercise, principal: str) -> None:
    """Every method with marked secrets."""
    db = "credentials/db"
    plain = pb.Credential(display_name="The database")
    await do("CreateCredential", pb.CreateCredentialRequest(credential_id="db", credential=plain, value=marked()))
    await do("GetCredential", pb.GetCredentialRequest(name=db))
    await do(
        "UpdateCredential", pb.UpdateCredentialRequest(credential=pb.Credential(name="credentials/db", category="a"))
    )
    await do("AddCredentialVersion", pb.AddCredentialVersionRequest(parent="credentials/db", value=marked()))
    for step in (pb.ROTATION_STEP_BEGIN, pb.ROTATION_STEP_REPORT, pb.ROTATION_STEP_FINISH, pb.ROTATION_STEP_ROLLBACK):
        value = marked() if step == pb.ROTATION_STEP_BEGIN else ""
        trial = pb.ROTATION_TRIAL_PASSED if step == pb.ROTATION_STEP_REPORT else pb.ROTATION_TRIAL_UNSPECIFIED
        await do("RotateCredential", pb.RotateCredentialRequest(name=db, step=step, value=value, trial=trial))
    await do("AccessCredential", pb.AccessCredentialRequest(name=db, purpose="test"))
    await do("AccessCredential", pb.AccessCredentialRequest(name=db, version=77))
    await do("ListCredentials", pb.ListCredentialsRequest())
    await do("ListCredentialVersions", pb.ListCredentialVersionsRequest(parent="credentials/db"))
    grant = await do(
        "GrantAccess", pb.GrantAccessRequest(parent="credentials/db", grant=pb.CredentialGrant(principal=principal))
    )
    await do("ListGrants", pb.ListGrantsRequest(parent="credentials/db"))
    await do("RevokeAccess", pb.RevokeAccessRequest(name=grant.name))
    await do("DisableCredentialVersion", pb.DisableCredentialVersionRequest(name="credentials/db/versions/1"))
    await do("DestroyCredentialVersion", pb.DestroyCredentialVersionRequest(name="credentials/db/versions/2"))
    await do("ImportEnvironment", pb.ImportEnvironmentRequest(variables={"ONE": marked(), "TWO": marked()}))
    await do("ImportEnvironment", pb.ImportEnvironmentRequest(prefix="APP_"))
    variable = pb.Credential(environment_variable="APP_TOKEN")
    await do("CreateCredential", pb.CreateCredentialRequest(credential_id="through", credential=variable))
    await do("AccessCredential", pb.AccessCredentialRequest(name="credentials/through"))
    await do("RotateEncryptionKey", pb.RotateEncryptionKeyRequest(action=pb.KEY_ACTION_START))
    await do("GetKeyStatus", pb.GetKeyStatusRequest())
    await do("DeleteCredential", pb.DeleteCredentialRequest(name=db))
    await do("UndeleteCredential", pb.UndeleteCredentialRequest(name=db))


async def misuse_everything(do: Exercise) -> None:
    """The same wrongly: whatever is refused must not repeat the secret."""
    again = str(uuid4())
    for credential_id in ("db", "Not An Id", "again", "again"):
        request = pb.CreateCredentialRequest(credential_id=credential_id, value=marked(), request_id=again)
        request.credential.SetInParent()
        await do("CreateCredential", request)
    setting = pb.CreateCredentialRequest(credential_id="s", value=marked(), credential=pb.Credential(encrypted=False))
    await do("CreateCredential", setting)
    await do("CreateCredential", pb.CreateCredentialRequest(credential_id="large", value=f"{MARK}" * 10_000))
    await do("AddCredentialVersion", pb.AddCredentialVersionRequest(parent="credentials/nothing", value=marked()))
    await do("AddCredentialVersion", pb.AddCredentialVersionRequest(parent=marked(), value=marked()[:9]))
    for step in (pb.ROTATION_STEP_ABORT, pb.ROTATION_STEP_FINISH):
        await do("RotateCredential", pb.RotateCredentialRequest(name="credentials/db", step=step, value=marked()))
    await do("RotateCredential", pb.RotateCredentialRequest(name="credentials/db", value=marked(), etag="stale"))
    await do("ImportEnvironment", pb.ImportEnvironmentRequest(variables={"_1": marked(), "1": marked()}))
    await do("ImportEnvironment", pb.ImportEnvironmentRequest(variables={"_1": marked()}))


async def dump(url: str) -> str:
    """All that any table of the database holds; what is binary as text where it is text."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        )
        rows = [row for table in tables for row in await connection.fetch(f"SELECT * FROM {table['name']}")]
    finally:
        await connection.close()
    assert len(rows) > 50
    return "\n".join(str([_text(value) for value in row.values()]) for row in rows)


def _text(value: object) -> object:
    return value.decode("latin-1") if isinstance(value, bytes) else value


@pytest.mark.timeout(240)
async def test_no_marked_secret_is_anywhere_but_where_it_was_asked_for(
    server_process: StartServer, database_url: str, administrator_url: str, data_folder: Path
) -> None:
    collector = Collector()
    async with collector.serving() as endpoint:
        environment = {
            "STATIONMASTER_TELEMETRY__LOG_LEVEL": "debug",
            "STATIONMASTER_TELEMETRY__OTLP_ENDPOINT": endpoint,
            "STATIONMASTER_TELEMETRY__SAMPLE_RATIO": "1",
            "STATIONMASTER_CREDENTIALS__ENVIRONMENT": "APP_*",
            "APP_TOKEN": marked(),
            "APP_OTHER": marked(),
        }
        server = await server_process(database_url=database_url, environment=environment)
        address = json.loads(_read(data_folder / "server.json"))
        async with server.channel() as channel:
            who: Any = identity_pb2_grpc.IdentityServiceStub(channel)
            me = await who.WhoAmI(identity_pb2.WhoAmIRequest())
            do = Exercise(channel)
            await use_everything(do, me.user.name)
            await misuse_everything(do)
            assert do.used == METHODS
            assert len([value for value in do.handed_out if MARK in value]) == 2
            audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
            trail = str(await audit.ListAuditEvents(audit_pb2.ListAuditEventsRequest(page_size=1000)))
            assert "credential.access" in trail
            agents: Any = agent_pb2_grpc.AgentServiceStub(channel)
            await agents.ListAgents(agent_pb2.ListAgentsRequest())
        async with httpx2.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"http://127.0.0.1:{address['admin_ports'][0]}/metrics")).text
        limits = psutil.Process(server.pid).rlimit(psutil.RLIMIT_CORE)
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        assert limits == ((0, 0) if most == 0 else (1, 1))
        await until(lambda: _holds(collector, b"AccessCredential"), seconds=30)
        server.process.send_signal(signal.SIGABRT)
        await server.process.wait()
    folders = [data_folder, data_folder.parent, Path.cwd()]
    places = {
        "answers": "\n".join(do.answers),
        "log": server.text,
        "trail": trail,
        "metrics": metrics,
        "traces": collector.seen.decode("latin-1"),
        "database": await dump(administrator_url),
        "files": "\n".join(_files(data_folder)),
        "core files": "\n".join(str(found) for folder in folders for found in folder.glob("core*") if found.is_file()),
    }
    assert "CredentialService" in places["log"]
    assert not places["core files"]
    assert [place for place, text in places.items() if MARK in text] == []


async def _holds(collector: Collector, text: bytes) -> bool:
    await asyncio.sleep(0)
    return text in collector.seen


def _read(path: Path) -> str:
    return path.read_text()


def _files(folder: Path) -> list[str]:
    return [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
