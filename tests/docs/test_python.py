"""Every Python of the README and the guides runs as it stands: programs, and pieces with what these need."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import FunctionType
from typing import Any

import pytest
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition
from stationmaster_server.resilience.webhooks import read_secret, signed

from tests.client.cli.program import Program
from tests.docs.commands import ROOT
from tests.docs.settings import MCP
from tests.docs.test_texts import Block, of
from tests.fixtures.server import RunningServer

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
PLUGIN = ROOT / "examples" / "task-kind-plugin" / "src"
FRAGMENT_MODULES = "import asyncio\nfrom datetime import timedelta\nfrom stationmaster_client import Client\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of a program takes for granted."""

    before: tuple[tuple[str, ...], ...] = ()
    """Commands of `stationmaster` that are run first."""
    start: str = ""
    """Python in front of it."""
    end: str = ""
    """Python behind it, which looks at what it made."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Text of it, and what stands for that here."""
    refused: str = ""
    """The reason for which the server refuses it here."""
    prints: str = ""


def mcp_server(name: str) -> tuple[str, ...]:
    """A command that registers the server of the tests."""
    return ("mcp-servers", "add", name, *MCP)


_SUMS = ("-k", "prompt", "-p", "model=demo", "-p", "prompt=what is {{ sum }}", "-p", "tools[]=math.*")
PIECES: dict[str, Piece] = {
    "README.md": Piece(prints="42"),
    "python-client.md: client.channel": Piece(prints="demo"),
    "python-client.md: SESSION_BUSY": Piece(
        start="name, text = (await client.sessions.create(model='demo')).name, 'what is 6*7'", end="assert reply.text"
    ),
    "python-client.md": Piece(prints="42"),
    "approvals.md": Piece(
        end="""
body = b'{"type": "permission.requested"}'
assert is_genuine(secret, headers(body), body)
assert not is_genuine(secret, headers(body), body + b' ')
assert not is_genuine(secret, headers(body, hours=1), body)
"""
    ),
    "audit.md": Piece(
        end="""
async with asyncio.timeout(30):
    while not [event async for event in client.audit.list(filter="action = custom.invoice.approve")]:
        await asyncio.sleep(0.05)
"""
    ),
    "claude.md": Piece(refused="MODEL_UNAVAILABLE"),  # no key is here; tests/agents/claude have a provider of their own
    "credentials.md": Piece(end="assert secret == 'correct horse'"),
    "experiments.md": Piece(
        before=(
            ("prompts", "create", "greeting", "-t", "Hello {{ name }}.", "-l", "production"),
            ("prompts", "update", "greeting", "-t", "Dear {{ name }},"),
            (
                "experiments",
                "create",
                "greeting",
                "--variant",
                "a=1",
                "--variant",
                "b=2",
                "--metric",
                "success",
                "--start",
            ),
        ),
        end="""
assert rendered.selection.variant
noted = await client.prompts.record("greeting", "success", 1, experiment=rendered.selection.experiment, unit="users/1")
assert noted.variant == rendered.selection.variant
""",
    ),
    "mcp.md: open_session": Piece(
        before=(mcp_server("browser"),), values={'"open", {"url": "https://example.com"}': '"add", {"a": 4, "b": 4}'}
    ),
    "mcp.md": Piece(
        before=(mcp_server("docs"),),
        values={'"search", {"text": "platform 4"}': '"add", {"a": 4, "b": 4}'},
        end="assert not answer.is_error",
    ),
    "reports.md": Piece(
        before=(
            ("tasks", "create", "sums", *_SUMS, "-v", "sum=6*7"),
            ("tasks", "run", "sums", "--watch", "--report", "{folder}/sums.pdf"),
        ),
        end="assert pdf.startswith(b'%PDF')",
    ),
    "search.md": Piece(
        before=(
            ("chat", "-m", "the invoice of the bakery was paid twice"),
            (
                "executions",
                "submit",
                "-k",
                "process",
                "-p",
                "text=Backups are restored.",
                "-p",
                "source=plan",
                "--watch",
            ),
        ),
        start="from stationmaster.v1 import search_pb2, task_pb2",
        prints="plan Backups are restored.",
    ),
    "task-kinds.md": Piece(
        start=f"import sys\nsys.path.insert(0, {str(PLUGIN)!r})\n"
        "from stationmaster_server.tasks.kinds.rehearsal import Rehearsal\n"
        "from stationmaster_word_count.kind import WordCount, WordCountPayload\n",
        end="assert done.result",
    ),
    "tasks.md": Piece(before=(("tasks", "create", "sums", *_SUMS, "-v", "sum=1"),), prints="42"),
}
ELSEWHERE = {"background-services.md": "tests/tasks/sync/test_targets.py asks such a store"}


def piece_of(block: Block) -> Piece:
    """What is said of a block: by a word that it has, or of all of its text."""
    for key, piece in PIECES.items():
        name, _, word = key.partition(": ")
        if name == block.file.name and word in block.content:
            return piece
    raise AssertionError(f"{block} is not prepared")


def headers(body: bytes, hours: int = 0) -> dict[str, str]:
    """Those of a delivery, as the server signs it."""
    return signed(read_secret(SECRET), "msg_1", datetime.now(UTC) - timedelta(hours=hours), body)


def execute(source: str, given: dict[str, Any]) -> None:
    """Run a program that may await where it stands."""
    code = compile(source, "<guide>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    run = FunctionType(code, given)
    if not code.co_flags & inspect.CO_COROUTINE:
        run()
        return

    async def main() -> None:
        async with Client.connect() as client:
            given["client"] = client
            await run()

    asyncio.run(main())


BLOCKS = [block for block in of("python") if block.file.name not in ELSEWHERE]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
async def test_the_python_of_a_text_runs_as_it_stands(
    block: Block,
    server: RunningServer,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piece = piece_of(block)
    program = Program(tmp_path, server.target, server.admin_key)
    for name, value in program.environment().items():
        monkeypatch.setenv(name, value)
    commands = [[word.replace("{folder}", str(tmp_path)) for word in command] for command in piece.before]
    results = await program.many(commands) if commands else []
    assert not [result for result in results if result.code]
    source = block.content
    for shown, here in piece.values.items():
        assert shown in source
        source = source.replace(shown, here)
    source = "\n".join((FRAGMENT_MODULES, piece.start, source, piece.end))
    given = {"__name__": "guide", "secret": SECRET, "headers": headers}
    if piece.refused:
        with pytest.raises(FailedPrecondition) as refusal:
            await asyncio.to_thread(execute, source, given)
        assert refusal.value.reason == piece.refused
    else:
        await asyncio.to_thread(execute, source, given)
    assert piece.prints in capsys.readouterr().out


def test_what_is_run_elsewhere_is_python_at_least() -> None:
    for block in of("python"):
        compile(block.content, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    prepared = {key.partition(": ")[0] for key in PIECES}
    assert prepared | ELSEWHERE.keys() == {block.file.name for block in of("python")}


def test_the_guide_of_the_client_shows_both_faces() -> None:
    shown = "".join(block.content for block in BLOCKS if block.file.name == "python-client.md")
    assert "import SyncClient" in shown
    assert "import Client" in shown
