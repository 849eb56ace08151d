"""Failures: a meaningful exit code, an explanation on standard error, and nothing on standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from stationmaster.v1 import session_pb2
from stationmaster_client import errors
from stationmaster_client.cli.errors import ExitCode, exit_code, explain

from tests.client.cli.program import Program
from tests.client.stand_in import SESSION, serving


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("INVALID_ARGUMENT", 2),
        ("NOT_FOUND", 3),
        ("PERMISSION_DENIED", 4),
        ("UNAUTHENTICATED", 4),
        ("ALREADY_EXISTS", 5),
        ("ABORTED", 5),
        ("FAILED_PRECONDITION", 5),
        ("RESOURCE_EXHAUSTED", 6),
        ("UNAVAILABLE", 7),
        ("DEADLINE_EXCEEDED", 8),
        ("INTERNAL", 1),
        ("DATA_LOSS", 1),
    ],
)
def test_the_exit_code_tells_what_kind_of_failure_it_was(name: str, code: int) -> None:
    assert exit_code(errors.CLASSES[grpc.StatusCode[name]]("no")) == code


async def test_a_failure_tells_the_reason_what_to_do_and_the_request_id(tmp_path: Path) -> None:
    async def send(request: session_pb2.PauseSessionRequest, context: Any) -> session_pb2.Session:
        status = status_pb2.Status(code=9, message="the session runs a turn")
        for detail in (
            error_details_pb2.ErrorInfo(reason="SESSION_BUSY", domain="stationmaster"),
            error_details_pb2.RequestInfo(request_id="request-7"),
        ):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        context.set_trailing_metadata(((errors.DETAILS_KEY, status.SerializeToString()),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, status.message)
        raise AssertionError

    async with serving(PauseSession=send) as target:
        result = await Program(tmp_path, target)("sessions", "pause", SESSION, "--json")
    assert (result.code, result.out) == (5, "")
    assert result.err.splitlines() == [
        "error: the session runs a turn",
        "       Wait for its turn, or cancel it: stationmaster sessions cancel.",
        "       (SESSION_BUSY, request request-7)",
    ]


def test_what_the_server_advises_is_told_as_a_command_and_the_file_that_was_looked_for_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    advice = errors.Violation("SESSION_STATE", "fork it with ForkSession")
    closed = errors.FailedPrecondition("it is TERMINATED", reason="SESSION_CLOSED", violations=(advice,))
    told = "\n".join(explain(closed, None))
    assert "fork it with stationmaster sessions fork" in told
    assert "resume" not in told
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    missing = errors.Unauthenticated("no key", reason="CREDENTIALS_MISSING")
    assert f"{tmp_path}/stationmaster/client.toml" in "\n".join(explain(missing, None))


async def test_a_server_that_is_not_there_is_named_with_where_its_address_came_from(tmp_path: Path) -> None:
    result = await Program(tmp_path, "127.0.0.1:1")("whoami")
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert "127.0.0.1:1 cannot be reached" in result.err
    assert "environment" in result.err
    assert "Traceback" not in result.err


async def test_a_pipe_that_holds_no_text_is_told_so(tmp_path: Path) -> None:
    process = await Program(tmp_path, "127.0.0.1:1").start("chat", "-m", "-", PYTHONUTF8="1")
    out, err = await process.communicate(b"\xff\xfe")
    assert (process.returncode, out) == (ExitCode.USAGE, b"")
    assert err.decode().strip() == "error: standard input holds what is no UTF-8 text, at byte 0"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "nothing"),
        ("sessions", "create"),
        ("sessions", "get", "abc"),
        ("permissions", "allow", SESSION + "/permissionRequests/1", "--arguments", "no json"),
        ("agents", "create", "helper"),
        ("agents", "create", "--file", "/nowhere.json"),
        ("chat", "--json"),
        ("whoami", "--context", "nowhere"),
        ("whoami", "--target", "127.0.0.1:1", "--context", "nowhere"),
        ("chat", "-", "-a", "helper", "-m", "hello"),
        ("chat", "--model", "demo", "-a", "helper", "-m", "hello"),
        ("chat", "-m", ""),
        ("chat", "-m", "\udcff"),
        ("sessions", "create", "--model", "demo", "--name", "\udcff"),
        ("sessions", "create", "--model", "demo", "--label", "a=\udcff"),
        ("agents", "create", "helper", "--model", "demo", "--instructions", "@/nowhere.txt"),
        ("agents", "create", "helper", "--model", "demo", "--instructions", f"@{sys.executable}"),
        ("agents", "create", "helper", "--model", "demo", "--limit", "tokens-per-turn=0"),
        ("agents", "create", "helper", "--model", "demo", "--limit", "seconds-per-turn=-1"),
        ("agents", "create", "helper", "--model", "demo", "--limit", "dollars-per-turn=0.0000001"),
        ("mcp", "--port", "8765x"),
        ("mcp", "--port", "8766"),
        ("mcp", "--allow-plaintext"),
        ("whoami", "--timeout", "0"),
        ("whoami", "--timeout", "nan"),
        ("whoami", "--target", "127.0.0.1"),
        ("whoami", "--target", "http://127.0.0.1:1"),
    ],
)
async def test_a_command_that_is_wrong_ends_with_2_before_anything_is_asked(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = await Program(tmp_path, "127.0.0.1:1")(*arguments)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err
    assert "Traceback" not in result.err
