"""A conversation with Google ADK's API server."""

from __future__ import annotations

import json
import time

from benchmarks.load.conversation import Reply, expected
from benchmarks.load.http import Http

_JSON = "application/json"


class Adk:
    """Over one kept HTTP connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._http = Http(host, int(port))

    async def create(self) -> str:
        """A new session."""
        return str((await self._http.post_json("/apps/fake/users/bench/sessions", {}))["id"])

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        message = {"role": "user", "parts": [{"text": f"/say {words}"}]}
        request = {"app_name": "fake", "user_id": "bench", "session_id": session, "new_message": message}
        body = json.dumps({**request, "streaming": True}).encode()
        whole, first = "", 0.0
        began = time.perf_counter()
        async for event in self._http.events("/run_sse", body, _JSON):
            text = "".join(part.get("text", "") for part in (event.get("content") or {}).get("parts", ()))
            if text:
                first = first or time.perf_counter() - began
            if not event.get("partial"):
                whole += text
        return Reply(first, time.perf_counter() - began, whole == expected(words))

    async def close(self) -> None:
        """End the connection."""
        await self._http.close()
