"""A conversation with Agno's AgentOS."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from benchmarks.load.conversation import Reply, expected
from benchmarks.load.http import Http

_FORM = "application/x-www-form-urlencoded"


class Agno:
    """Over one kept HTTP connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._http = Http(host, int(port))

    async def create(self) -> str:
        """A new session."""
        answer = await self._http.post_json("/sessions?type=agent", {"agent_id": "fake"})
        return str(answer["session_id"])

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        form = urlencode({"message": f"/say {words}", "stream": "true", "session_id": session}).encode()
        text: list[str] = []
        completed, first = False, 0.0
        began = time.perf_counter()
        async for event in self._http.events("/agents/fake/runs", form, _FORM):
            if event["event"] == "RunContent":
                first = first or time.perf_counter() - began
                text.append(event["content"])
            elif event["event"] == "RunCompleted":
                completed = True
        return Reply(first, time.perf_counter() - began, completed and "".join(text) == expected(words))

    async def close(self) -> None:
        """End the connection."""
        await self._http.close()
