"""LangGraph: its development server over HTTP, which keeps everything in memory; the model is offline."""

from __future__ import annotations

import json

from benchmarks.peers.environment import environment
from benchmarks.peers.server import Recipe

VERSION = "0.16.7"
"""Of langgraph-api, which is the server; langgraph-cli starts it."""
_CLI = "0.4.40"
_JOBS = "16"
"""Runs at once, as many as there are callers. The server's default is fewer."""

_APP = '''
import asyncio

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph


def words(messages):
    count = int(messages[-1].text.split()[-1])
    return [f" word{number}" if number > 1 else "word1" for number in range(1, count + 1)]


class Fake(BaseChatModel):
    """Says as many words as the message's last word tells; gives way after each, as one on the network does."""

    @property
    def _llm_type(self):
        return "fake"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(words(messages))))])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for word in words(messages):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            await asyncio.sleep(0)


model = Fake()


async def answer(state: MessagesState):
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
'''

_QUIET = {
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_API_KEY": "",
    "LANGCHAIN_API_KEY": "",
    "LANGGRAPH_CLOUD_LICENSE_KEY": "",
    "LOG_LEVEL": "WARNING",
}
"""Nothing leaves the machine: no analytics, no traces, no look for newer versions, no key."""


async def recipe() -> Recipe:
    """How to run it, once it is installed. Raises Skipped."""
    programs = await environment("langgraph", (f"langgraph-cli[inmem]=={_CLI}", f"langgraph-api=={VERSION}"))
    return Recipe(
        name="LangGraph",
        version=VERSION,
        files={
            "app.py": _APP,
            "langgraph.json": json.dumps({"dependencies": ["."], "graphs": {"fake": "./app.py:graph"}}),
        },
        program=programs / "langgraph",
        arguments=(
            *("dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", "{port}"),
            *("--n-jobs-per-worker", _JOBS),
        ),
        environment=_QUIET,
        ready_path="/ok",
    )
