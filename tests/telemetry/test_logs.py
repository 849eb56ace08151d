"""Logs: one line each, with the request id, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from stationmaster_server.telemetry import context, logs
from stationmaster_server.telemetry.masking import mask, mask_text


@pytest.fixture
def lines() -> Iterator[Any]:
    """What is logged as JSON meanwhile."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.set_up("info", "json", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


def test_a_line_tells_the_call_it_belongs_to(lines: Any) -> None:
    token = context.request_id.set("r-1")
    structlog.get_logger("a.b").info("something", count=3)
    context.request_id.reset(token)
    logging.getLogger("c").warning("plain %s", "text")
    first, second = lines()
    assert (first["event"], first["request_id"], first["count"], first["level"]) == ("something", "r-1", 3, "info")
    assert (second["event"], second["logger"], "request_id" in second) == ("plain text", "c", False)


def test_secrets_are_masked_wherever_they_stand(lines: Any) -> None:
    log = structlog.get_logger()
    log.info("url postgresql://user:hunter2@db/x", password="hunter2", nested={"api_key": "hunter2", "n": 1})
    try:
        raise RuntimeError("authorization: Bearer hunter2hunter2")
    except RuntimeError:
        log.exception("failed")
    text = json.dumps(lines())
    assert "hunter2" not in text
    assert '"n": 1' in text
    assert "RuntimeError" in text


async def test_why_a_tool_of_an_mcp_server_failed_is_for_its_caller_and_no_line(lines: Any) -> None:
    server = MCPServer("shop")

    @server.tool()
    async def query() -> str:
        raise ToolError("no order of customer Alice")

    async with Client(server) as client:
        assert (await client.call_tool("query")).is_error
    assert "Alice" not in json.dumps(lines())


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abcdefgh12345678",
        "sk-ant-abcdefgh12345678",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-123",
        "https://u:pa55word@host/",
    ],
)
def test_texts_that_look_like_secrets_are_masked(secret: str) -> None:
    masked = mask_text(f"before {secret} after")
    assert masked.startswith("before ")
    assert "***" in masked
    assert secret not in masked


def test_what_only_counts_tokens_is_no_secret() -> None:
    counts = {"input_tokens": 12, "max_tokens": 5}
    assert mask({**counts, "token": "x"}) == {**counts, "token": "***"}
