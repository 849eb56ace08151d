"""C1: reading a secret, with everything on: grant, decryption, and the audit event committed before the answer."""

from __future__ import annotations

import asyncio
import uuid
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster.v1 import credential_pb2

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.load.channel import channel, pairs, unary_call
from benchmarks.measure import Measure, Side

SERVICE = "/stationmaster.v1.CredentialService"
_CREDENTIALS = 64
_SECRET = "x" * 64


class AccessCredential(Measure):
    """Many callers read some secrets in turn."""

    id = "C1"
    title = "AccessCredential: grant, decrypt, audit committed before the answer, 64 callers"
    goals: ClassVar = (Goal("C1.echo", "rate", "echo", ">=", 0.30, "calls/s"),)

    def sides(self) -> Mapping[str, Side]:
        """Echo, ours."""
        return {"echo": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """Secrets to read."""
        server = await self.bench.server()
        sent = pairs(server.metadata)
        ids = [f"bench-{uuid.uuid4().hex[:16]}" for _ in range(_CREDENTIALS)]
        async with channel(server.target) as one:
            create = unary_call(one, f"{SERVICE}/CreateCredential")
            await asyncio.gather(*(create(_creation(each), metadata=sent, timeout=60) for each in ids))
        requests = [credential_pb2.AccessCredentialRequest(name=f"credentials/{each}", purpose="bench") for each in ids]
        self._requests = [b64encode(request.SerializeToString()).decode() for request in requests]
        self._size = int((await self._ours(0.2))["answer_bytes"])

    async def floor(self) -> Figures:
        """The echo of as many bytes."""
        echo = await self.bench.echo()
        return await self._run(target=echo.target, method=f"/echo.Echo/{self._size}", seconds=self.bench.plan.seconds)

    async def ours(self) -> Figures:
        """The call."""
        return await self._ours(self.bench.plan.seconds)

    async def _ours(self, seconds: float) -> Figures:
        server = await self.bench.server()
        method = f"{SERVICE}/AccessCredential"
        return await self._run(target=server.target, method=method, metadata=server.metadata, seconds=seconds)

    async def _run(self, **parameters: Any) -> Figures:
        load = await self.bench.load()
        return await load.run("unary", requests=self._requests, callers=64, **parameters)


def _creation(credential_id: str) -> bytes:
    request = credential_pb2.CreateCredentialRequest(credential_id=credential_id, value=_SECRET)
    request.credential.SetInParent()
    return request.SerializeToString()
