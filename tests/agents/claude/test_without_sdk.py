"""A server where the SDK is not installed, or not wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stationmaster.v1 import agent_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition

from tests.fixtures.server import running, server_settings

BLOCKED = """
import sys
sys.modules["claude_agent_sdk"] = None
import stationmaster_server.app.root
from stationmaster_server.agents.runtimes.claude.runtime import lacking
print(lacking())
"""


def test_the_server_is_made_without_the_sdk_and_says_how_to_get_it() -> None:
    out = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    assert "pip install 'stationmaster[server,claude]'" in out.stdout


async def test_sessions_are_refused_where_the_runtime_is_not(database_url: str, tmp_path: Path) -> None:
    anthropic = {"api_key": "sk-ant-none", "base_url": "http://127.0.0.1:1"}
    models = {"claude": {"enabled": False}, "anthropic": anthropic}
    settings = server_settings(tmp_path / "data", database_url, models=models)
    spec = agent_pb2.AgentSpec(runtime=agent_pb2.RUNTIME_CLAUDE, model="anthropic:claude-sonnet-5")
    async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
        with pytest.raises(FailedPrecondition, match="CLAUDE is not installed") as raised:
            await client.sessions.create(spec=spec)
    assert raised.value.reason == "RUNTIME_UNAVAILABLE"
