"""The Python client of Stationmaster: `Client` (asyncio) and `SyncClient`, the same behind blocking calls.

async with Client.connect() as client:
    session = await client.sessions.create(model="demo")
    async with client.sessions.send(session.name, "hello") as events:
        async for event in events:
            print(event.text_delta.text, end="")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stationmaster_client.calls import deadline
    from stationmaster_client.client import Client
    from stationmaster_client.connection import ConfigurationError, Connection, Tls
    from stationmaster_client.errors import StationmasterError
    from stationmaster_client.stream import EventStream, Interruption
    from stationmaster_client.sync import SyncClient

# Imported at first use, so that `stationmaster --help` does not wait for gRPC.
_HOMES = {
    "Client": "client",
    "ConfigurationError": "connection",
    "Connection": "connection",
    "EventStream": "stream",
    "Interruption": "stream",
    "StationmasterError": "errors",
    "SyncClient": "sync",
    "Tls": "connection",
    "deadline": "calls",
}

__all__ = [
    "Client",
    "ConfigurationError",
    "Connection",
    "EventStream",
    "Interruption",
    "StationmasterError",
    "SyncClient",
    "Tls",
    "deadline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
