"""A conversation with LangGraph's development server."""

from __future__ import annotations

import json
import time

from benchmarks.load.conversation import Reply, expected
from benchmarks.load.http import Http

_JSON = "application/json"


class LangGraph:
    """Over one kept HTTP connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._http = Http(host, int(port))

    async def create(self) -> str:
        """A new session: a thread, as it is called there."""
        return str((await self._http.post_json("/threads", {}))["thread_id"])

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        message = {"role": "user", "content": f"/say {words}"}
        request = {"assistant_id": "fake", "input": {"messages": [message]}, "stream_mode": ["messages-tuple"]}
        text: list[str] = []
        completed, failed, first = False, False, 0.0
        began = time.perf_counter()
        async for event in self._http.events(f"/threads/{session}/runs/stream", json.dumps(request).encode(), _JSON):
            match event:
                case [{"type": "AIMessageChunk", "content": str(content)} as chunk, _]:
                    if content:
                        first = first or time.perf_counter() - began
                        text.append(content)
                    completed = completed or chunk.get("chunk_position") == "last"
                case {"error": _}:
                    failed = True
        right = completed and not failed and "".join(text) == expected(words)
        return Reply(first, time.perf_counter() - began, right)

    async def close(self) -> None:
        """End the connection."""
        await self._http.close()
