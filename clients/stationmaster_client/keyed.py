"""The API key on calls of generated stubs, which know nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpc import aio

_HEADER = "authorization"


class _Key:
    """Puts the key into a call's metadata, unless the call brings one."""

    def __init__(self, api_key: str) -> None:
        self._value = f"Bearer {api_key}"

    def on(self, details: aio.ClientCallDetails) -> aio.ClientCallDetails:
        """The same call with the key."""
        metadata = aio.Metadata(*(details.metadata or ()))
        if not metadata.get_all(_HEADER):
            metadata.add(_HEADER, self._value)
        return aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _OfAnswers(_Key, aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self.on(client_call_details), request)


class _OfStreams(_Key, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self.on(client_call_details), request)


def interceptors(api_key: str | None) -> Sequence[aio.ClientInterceptor]:
    """For a channel whose calls all carry the key. (One for each shape of calls: gRPC takes an object for one only.)"""
    return () if api_key is None else (_OfAnswers(api_key), _OfStreams(api_key))
