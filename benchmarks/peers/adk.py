"""Google ADK: its API server over HTTP, with SQLite; the model is offline."""

from __future__ import annotations

from benchmarks.peers.environment import environment
from benchmarks.peers.server import Recipe

VERSION = "2.13.0"

_AGENT = '''
import asyncio

from google.adk.agents import Agent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.genai import types


class Fake(BaseLlm):
    """Says as many words as the message's last word tells; gives way after each, as one on the network does."""

    async def generate_content_async(self, llm_request, stream=False):
        count = int(llm_request.contents[-1].parts[-1].text.split()[-1])
        words = [f" word{number}" if number > 1 else "word1" for number in range(1, count + 1)]
        for word in words if stream else ():
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=word)]), partial=True)
            await asyncio.sleep(0)
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="".join(words))]), partial=False)


root_agent = Agent(name="fake", model=Fake(model="fake"), instruction="")
'''


async def recipe() -> Recipe:
    """How to run it, once it is installed. Raises Skipped."""
    programs = await environment("google-adk", (f"google-adk[db]=={VERSION}", "aiosqlite"))
    return Recipe(
        name="ADK",
        version=VERSION,
        files={"agents/fake/__init__.py": "from . import agent\n", "agents/fake/agent.py": _AGENT},
        program=programs / "adk",
        arguments=(
            *("api_server", "--port", "{port}"),
            *("--session_service_uri", "sqlite+aiosqlite:///{folder}/adk.db", "agents"),
        ),
        environment={},
        ready_path="/list-apps",
    )
