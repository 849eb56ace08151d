"""The MCP server over HTTP: keys of the callers, and no request that a web page made a browser send."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from stationmaster_client.client import Client
from stationmaster_client.connection import ConfigurationError
from stationmaster_client.errors import PermissionDenied, StationmasterError, Unauthenticated
from stationmaster_client.mcp_server.caller import BearerCallers
from stationmaster_client.mcp_server.errors import explain
from stationmaster_client.mcp_server.server import build

PATH = "/mcp"
_MOST_SESSIONS = 1_000
_MOST_REQUESTS = 1_000


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen, and as what."""

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None
    allow_plaintext: bool = False
    allowed_hosts: Sequence[str] = ()
    """Names besides those of loopback and `host` under which clients reach it."""
    allowed_origins: Sequence[str] = ()
    """Web pages (`https://app.example.com`) that may call it."""

    def check(self) -> None:
        """Raise ConfigurationError for what would send keys in plaintext over a network."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("--tls-certificate and --tls-key are needed together")
        if not (_is_loopback(self.host) or self.certificate or self.allow_plaintext):
            raise ConfigurationError(
                f"--host {self.host} is reachable from other hosts, and API keys would travel in plaintext: give "
                "--tls-certificate and --tls-key, or --allow-plaintext if something in front of it encrypts"
            )

    def security(self) -> TransportSecuritySettings:
        """The Host and Origin headers that are let through."""
        local = ["localhost", "127.0.0.1", "[::1]"]
        host = f"[{self.host}]" if ":" in self.host else self.host
        hosts = [*local, *([] if self.host in ("0.0.0.0", "::") else [host]), *self.allowed_hosts]  # noqa: S104
        origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in local]
        return TransportSecuritySettings(
            allowed_hosts=[form for name in hosts for form in (name, f"{name}:*")],
            allowed_origins=[*(form for name in origins for form in (name, f"{name}:*")), *self.allowed_origins],
        )


async def serve(client: Client, listener: Listener, ready: Callable[[str], None]) -> None:
    """Serve until the process is told to stop; `ready` hears the URL. Raises ConfigurationError."""
    listener.check()
    try:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        bound = socket.create_server((listener.host, listener.port), family=family)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {listener.host}:{listener.port}: {error.strerror}") from error
    with bound:
        config = uvicorn.Config(
            application(client, listener),
            log_level="warning",
            access_log=False,
            lifespan="on",
            limit_concurrency=_MOST_REQUESTS,
            timeout_graceful_shutdown=5,
            server_header=False,
            ssl_certfile=listener.certificate,
            ssl_keyfile=listener.key,
        )
        host, port = bound.getsockname()[:2]
        scheme = "https" if listener.certificate else "http"
        ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{PATH}")
        await uvicorn.Server(config).serve(sockets=[bound])


def application(client: Client, listener: Listener) -> ASGIApp:
    """The ASGI application: a key is asked for first, then Host and Origin are looked at, then MCP begins."""
    callers = BearerCallers(client)
    app = build(callers).streamable_http_app(
        streamable_http_path=PATH, transport_security=listener.security(), max_sessions=_MOST_SESSIONS
    )
    return RequireKey(app, callers)


class RequireKey:
    """Lets through who has a valid key, and tells MCP whose it is: a session of MCP belongs to one user."""

    def __init__(self, app: ASGIApp, callers: BearerCallers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = self._callers.of(Headers(scope=scope).get("authorization"))
        if client is None:
            missing = "This server needs an API key of Stationmaster: send Authorization: Bearer {API key}."
            await _refuse(401, missing)(scope, receive, send)
            return
        try:
            me = await client.whoami()
        except StationmasterError as error:
            status = {Unauthenticated: 401, PermissionDenied: 403}.get(type(error), 503)
            await _refuse(status, explain(error, client.connection.target))(scope, receive, send)
            return
        owner = AccessToken(token="", client_id=me.user.name, subject=me.user.name, scopes=list(me.scopes))
        await self._app({**scope, "user": AuthenticatedUser(owner)}, receive, send)


def _refuse(status: int, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": "refused", "error_description": message}, status_code=status, headers=headers)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
