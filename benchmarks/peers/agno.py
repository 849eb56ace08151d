"""Agno: its AgentOS over HTTP, with SQLite, as its documentation sets it up; the model is offline."""

from __future__ import annotations

from benchmarks.peers.environment import environment
from benchmarks.peers.server import Recipe

VERSION = "3.1.10"

_APP = '''
import asyncio

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.os import AgentOS


class Fake(Model):
    """Says as many words as the message's last word tells; gives way after each, as one on the network does."""

    def invoke(self, *args, **kwargs):
        raise NotImplementedError

    async def ainvoke(self, *args, **kwargs):
        raise NotImplementedError

    def invoke_stream(self, *args, **kwargs):
        raise NotImplementedError

    async def ainvoke_stream(self, messages, *args, **kwargs):
        for number in range(1, int(messages[-1].content.split()[-1]) + 1):
            yield ModelResponse(role="assistant", content=f" word{number}" if number > 1 else "word1")
            await asyncio.sleep(0)

    def _parse_provider_response(self, response, **kwargs):
        return response

    def _parse_provider_response_delta(self, response):
        return response


agent = Agent(id="fake", name="fake", model=Fake(id="fake"), db=SqliteDb(db_file="agno.db"), telemetry=False)
app = AgentOS(agents=[agent], telemetry=False).get_app()
'''


async def recipe() -> Recipe:
    """How to run it, once it is installed. Raises Skipped."""
    programs = await environment(
        "agno", (f"agno=={VERSION}", "fastapi[standard]", "sqlalchemy", "aiosqlite", "greenlet")
    )
    return Recipe(
        name="Agno",
        version=VERSION,
        files={"app.py": _APP},
        program=programs / "uvicorn",
        arguments=("app:app", "--port", "{port}", "--log-level", "warning"),
        environment={"AGNO_TELEMETRY": "false"},
        ready_path="/health",
    )
