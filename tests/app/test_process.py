"""The program as people run it: it says what they need, stops when told, and names each fault in one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import grpc
import pytest
from stationmaster.v1 import identity_pb2, identity_pb2_grpc, session_pb2, session_pb2_grpc

from tests.fixtures import forks
from tests.fixtures.peers import as_peer, environment_of, runs
from tests.fixtures.server import ServerProcess, StartServer
from tests.rpc.served import reason_of
from tests.waiting import until


async def run(*arguments: str, environment: dict[str, str], seconds: float = 60) -> tuple[int, str, str]:
    """Run a command of the program to its end: code, output, errors."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STATIONMASTER_")}
    return await forks.run(forks.SERVER, arguments, variables | environment, seconds=seconds)


def fault(errors: str) -> str:
    """The one line that tells of a fault; anything else, such as a traceback, is a failure of the test."""
    assert "Traceback" not in errors, errors
    lines = [line for line in errors.splitlines() if line.startswith("stationmaster-server: ")]
    assert len(lines) == 1, errors
    return lines[0]


async def who_am_i(server: ServerProcess, key: str = "") -> str:
    """The user that a key is of."""
    async with server.channel(key) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        # A connection that a dying process had just accepted is tried again elsewhere.
        answer = await stub.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=10, wait_for_ready=True)
        return str(answer.user.name)


def children_of(server: ServerProcess) -> set[int]:
    """The process ids of the servers that a parent has started."""
    listed = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(pid) for pid in listed if b"app.child" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def live(pids: set[int]) -> set[int]:
    """Those of the processes that exist."""
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def other_version(data_folder: Path) -> None:
    """Let the data be of another PostgreSQL."""
    (version,) = data_folder.rglob("data/PG_VERSION")
    version.write_text("12\n")


async def _read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        continue


async def test_a_start_tells_where_it_listens_and_where_the_key_is(server_process: StartServer) -> None:
    server = await server_process()
    assert await who_am_i(server)
    for told in (server.target, f"embedded PostgreSQL in {server.data_folder}", str(server.data_folder / "admin.key")):
        assert told in server.text
    assert await server.stop() == 0
    assert server.admin_key not in server.text


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_no_other_process_of_the_user_reads_the_environment_of_the_server(
    server_process: StartServer, database_url: str
) -> None:
    word = {"STATIONMASTER_CREDENTIALS__KEYS": f"k1:{b64encode(bytes(range(32))).decode()}"}
    program = tuple(as_peer("-m", "stationmaster_server"))
    server = await server_process(database_url=database_url, environment=word, program=(*program, "serve"))
    other = await asyncio.create_subprocess_exec(sys.executable, *as_peer("-c", "input()"), stdin=-1, env=word)
    await until(lambda: asyncio.to_thread(runs, other.pid, "-c", "input()"))
    assert word["STATIONMASTER_CREDENTIALS__KEYS"].encode() in (environment_of(other.pid) or b"")
    await other.communicate(b"\n")
    assert environment_of(server.pid) is None
    assert await server.stop() == 0


async def test_a_killed_server_starts_again_with_everything(server_process: StartServer) -> None:
    first = await server_process()
    user = await who_am_i(first)
    await first.kill()
    second = await server_process()
    assert await who_am_i(second) == user


async def test_sigterm_lets_a_reply_end_and_then_stops(server_process: StartServer, database_url: str) -> None:
    server = await server_process(database_url=database_url)
    async with server.channel() as channel:
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        request = session_pb2.CreateSessionRequest()
        request.session.spec.model = "demo"
        session = await sessions.CreateSession(request, timeout=10)
        watch = sessions.WatchSession(session_pb2.WatchSessionRequest(name=session.name))
        await watch.read()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _read_to_the_end(watch)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(raised.value) == "SERVER_STOPPING"
    assert await stopping == 0


async def test_the_second_signal_does_not_wait(server_process: StartServer, database_url: str) -> None:
    patient = {"STATIONMASTER_SERVER__DRAIN_DELAY": "10m"}
    server = await server_process(database_url=database_url, environment=patient)
    server.process.send_signal(signal.SIGINT)

    async def stopping() -> bool:
        return "stopping" in server.text

    await until(stopping)
    assert server.process.returncode is None
    assert await server.stop(signal.SIGINT, seconds=15) == 0


async def test_several_processes_share_the_port_and_a_dead_one_is_replaced(
    server_process: StartServer, database_url: str
) -> None:
    server = await server_process(database_url=database_url, arguments=("--processes", "2"))

    before = children_of(server)
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)

    async def dead() -> bool:
        return not live({victim})

    await until(dead)  # until then it may still accept a connection, and break it
    for _ in range(20):
        assert await who_am_i(server)  # the other one serves meanwhile

    async def replaced() -> bool:
        now = children_of(server)
        return victim not in now and len(now) == 2

    await until(replaced)
    assert await server.stop() == 0
    assert not live(before)


async def test_children_do_not_outlive_a_killed_parent(server_process: StartServer, database_url: str) -> None:
    server = await server_process(database_url=database_url, arguments=("--processes", "2"))
    children = children_of(server)
    await server.kill()

    async def gone() -> bool:
        return not live(children)

    await until(gone, seconds=30)


async def test_an_unknown_setting_stops_the_start(data_folder: Path) -> None:
    environment = {"STATIONMASTER_DATA_FOLDER": str(data_folder), "STATIONMASTER_SERVER__PROT": "1"}
    code, _, errors = await run("serve", environment=environment)
    assert code == 78
    assert "did you mean STATIONMASTER_SERVER__PORT?" in fault(errors)


async def test_a_port_in_use_stops_the_start(data_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (("--port", str(port)), ("--port", str(port), "--processes", "2")):
            environment = {"STATIONMASTER_DATA_FOLDER": str(data_folder)}
            code, _, errors = await run("serve", *arguments, environment=environment)
            assert code == 1
            assert f"127.0.0.1:{port} is in use" in fault(errors)


async def test_a_data_folder_that_cannot_be_used_stops_the_start(data_folder: Path) -> None:
    data_folder.touch()  # noqa: ASYNC240
    code, _, errors = await run("serve", environment={"STATIONMASTER_DATA_FOLDER": str(data_folder)})
    assert code == 1
    assert str(data_folder) in fault(errors)
    assert "STATIONMASTER_DATA_FOLDER" in fault(errors)


async def test_data_of_another_postgresql_stops_the_start(server_process: StartServer) -> None:
    server = await server_process()
    await server.stop()
    other_version(server.data_folder)
    code, _, errors = await run("serve", environment={"STATIONMASTER_DATA_FOLDER": str(server.data_folder)})
    assert code == 1
    assert "12" in fault(errors)


async def test_a_database_that_is_away_stops_the_start_after_the_limit(data_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "STATIONMASTER_DATA_FOLDER": str(data_folder),
        "DATABASE_URL": f"postgresql://u:hunter2@127.0.0.1:{port}/x",
        "STATIONMASTER_DATABASE__CONNECT_TIMEOUT": "1s",
    }
    code, output, errors = await run("serve", environment=environment)
    assert code == 1
    assert f"127.0.0.1:{port}/x" in fault(errors)
    assert "hunter2" not in output + errors


async def test_keys_are_made_listed_and_revoked_beside_a_running_server(server_process: StartServer) -> None:
    server = await server_process()
    environment = {"STATIONMASTER_DATA_FOLDER": str(server.data_folder)}
    code, secret, errors = await run("keys", "create", "--name", "robot", environment=environment)
    assert code == 0
    name = errors.split()[0] if errors.startswith("apiKeys/") else errors[errors.index("apiKeys/") :].split()[0]
    assert await who_am_i(server, secret.strip())
    _, listed, _ = await run("keys", "list", environment=environment)
    assert name in listed
    assert "robot" in listed
    assert secret.strip() not in listed
    code, _, _ = await run("keys", "revoke", name, environment=environment)
    assert code == 0

    async def refused() -> bool:
        try:
            await who_am_i(server, secret.strip())
        except grpc.aio.AioRpcError as error:
            return reason_of(error) == "CREDENTIALS_REVOKED"
        return False

    await until(refused)


async def test_the_first_key_by_hand_makes_an_operator_where_the_start_makes_none(server_process: StartServer) -> None:
    closed = {"STATIONMASTER_IDENTITY__LOCAL_ADMIN": "false"}
    server = await server_process(environment=closed)
    environment = {"STATIONMASTER_DATA_FOLDER": str(server.data_folder), **closed}
    code, secret, errors = await run("keys", "create", "--name", "admin", environment=environment)
    assert code == 0, errors
    async with server.channel(secret.strip()) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        answer = await stub.WhoAmI(identity_pb2.WhoAmIRequest())
        assert answer.organization.display_name == "local"
        request = identity_pb2.CreateOrganizationRequest(
            organization=identity_pb2.Organization(display_name="Acme"), owner_display_name="Ann"
        )
        await stub.CreateOrganization(request)  # only operators do
    code, second, errors = await run("keys", "create", environment=environment)
    assert code == 0, errors
    async with server.channel(second.strip()) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        again = await stub.WhoAmI(identity_pb2.WhoAmIRequest())
        assert again.user == answer.user, "there is one first owner"
        assert "organizations.admin" not in again.scopes


async def test_a_key_of_its_owner_is_the_way_into_a_new_organization(server_process: StartServer) -> None:
    server = await server_process()
    environment = {"STATIONMASTER_DATA_FOLDER": str(server.data_folder)}
    async with server.channel() as channel:
        new = identity_pb2.Organization(display_name="Acme")
        request = identity_pb2.CreateOrganizationRequest(organization=new, owner_display_name="Ann")
        made = await identity_pb2_grpc.IdentityServiceStub(channel).CreateOrganization(request)
    code, secret, errors = await run("keys", "create", "--organization", made.name, environment=environment)
    assert code == 0, errors
    async with server.channel(secret.strip()) as channel:
        answer = await identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest())
    assert (answer.organization.name, answer.user.display_name) == (made.name, "Ann")
    for arguments, told in (
        (("--organization", "organizations/00000000-0000-7000-8000-000000000000"), "was not found"),
        (("--organization", made.name, "--user", answer.user.name), "exclude each other"),
        (("--scope", "session.read"), "session.read would allow nothing"),
    ):
        code, secret, errors = await run("keys", "create", *arguments, environment=environment)
        assert (code, secret) == (1, "")
        assert told in errors


async def test_doctor_finds_a_healthy_server_and_each_fault(server_process: StartServer) -> None:
    server = await server_process()
    environment = {"STATIONMASTER_DATA_FOLDER": str(server.data_folder), "STATIONMASTER_ADMIN__PORT": "0"}
    code, told, _ = await run("doctor", environment={**environment, "STATIONMASTER_SERVER__PORT": "0"})
    assert code == 0, told
    assert "OK    database" in told
    assert "    pools        a process started in" in told
    assert "OK    audit        this server can sign checkpoints" in told
    wrong = {"STATIONMASTER_SERVER__PORT": "0", "STATIONMASTER_AUDIT__SIGNING_KEYS": "no key"}
    code, told, errors = await run("doctor", environment={**environment, **wrong})
    assert code == 1
    assert "FAIL  settings     setting audit.signing_keys" in told
    assert "FAIL  audit        the setting audit.signing_keys" in told
    assert "OK    database" in told, "one fault hides no other"
    (server.data_folder / "admin.key").chmod(0o644)
    port = server.target.rpartition(":")[2]
    code, told, errors = await run("doctor", environment={**environment, "STATIONMASTER_SERVER__PORT": port})
    assert code == 1
    assert f"chmod 600 {server.data_folder / 'admin.key'}" in told
    assert f"OK    ports        server.port {port} is used by this server, process {server.pid}" in told
    assert "Traceback" not in errors


async def test_doctor_tries_the_encryption_key_and_makes_none(
    server_process: StartServer, data_folder: Path, database_url: str
) -> None:
    folder = {"STATIONMASTER_DATA_FOLDER": str(data_folder), "DATABASE_URL": database_url}
    ports = {"STATIONMASTER_ADMIN__PORT": "0", "STATIONMASTER_SERVER__PORT": "0"}
    keys = data_folder / "credentials.keys"
    _, told, _ = await run("doctor", environment={**folder, **ports})
    assert f"OK    encryption   no key yet: the first start makes one in {keys}" in told
    _, told, _ = await run("doctor", environment={**folder, **ports, "STATIONMASTER_PROFILE": "production"})
    assert "WARN  encryption   no encryption key is configured" in told
    assert not keys.exists()
    server = await server_process(database_url=database_url, folder=data_folder)
    assert await server.stop() == 0
    key_id = keys.read_text().partition(":")[0]
    code, told, _ = await run("doctor", environment={**folder, **ports})
    assert code == 0
    assert f"OK    encryption   key {key_id!r} of the provider file opens its canary" in told
    keys.write_text(f"{key_id}:{b64encode(bytes(32)).decode()}\n")
    code, told, errors = await run("doctor", environment={**folder, **ports})
    assert code == 1
    assert f"FAIL  encryption   the key {key_id!r} that this server was given is not the one" in told
    keys.unlink()
    code, told, _ = await run("doctor", environment={**folder, **ports})
    assert code == 1
    assert f"FAIL  encryption   the key {key_id!r} is missing" in told
    assert not keys.exists()
    assert "Traceback" not in errors


async def test_doctor_warns_of_models_whose_price_is_not_known(data_folder: Path, database_url: str) -> None:
    environment = {
        "STATIONMASTER_DATA_FOLDER": str(data_folder),
        "DATABASE_URL": database_url,
        "STATIONMASTER_MODELS__COMPATIBLE": json.dumps(
            {"local": {"base_url": "http://127.0.0.1:1/v1", "models": ["own", "other"]}}
        ),
        "STATIONMASTER_MODELS__PRICES": '{"local:own": {"input": 0.2, "output": 0.6}}',
    }
    _, told, _ = await run("doctor", environment=environment)
    assert "WARN  prices       what local:other costs is not known" in told
    assert "local:own" not in told


async def test_doctor_tries_a_process_of_the_pool(data_folder: Path, database_url: str) -> None:
    environment = {
        "STATIONMASTER_DATA_FOLDER": str(data_folder),
        "DATABASE_URL": database_url,
        "STATIONMASTER_POOLS__PROCESSES": "100000",
    }
    _, told, _ = await run("doctor", environment=environment)
    assert "WARN  pools        a process started in" in told
    assert "lower pools.memory or pools.processes" in told


async def test_doctor_says_that_the_database_is_away(data_folder: Path) -> None:
    environment = {
        "STATIONMASTER_DATA_FOLDER": str(data_folder),
        "DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x",
        "STATIONMASTER_DATABASE__CONNECT_TIMEOUT": "1s",
    }
    code, told, errors = await run("doctor", environment=environment)
    assert code == 1
    assert "FAIL  database" in told
    assert "hunter2" not in told + errors
    assert "Traceback" not in errors
