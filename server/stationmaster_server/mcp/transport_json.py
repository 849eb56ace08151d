"""A transport as JSON: what may be shown, and apart from it the values that may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp.model import BuiltIn, Http, Stdio, Transport


def transport_to_json(transport: Transport) -> tuple[dict[str, Any], dict[str, str]]:
    """What may be shown of it (with the names of its secrets), and its secrets by name."""
    match transport:
        case Stdio(command, arguments, environment):
            shown: dict[str, Any] = {"kind": "stdio", "command": command, "arguments": list(arguments)}
            return shown | {"names": sorted(environment)} | _named(transport), dict(environment)
        case Http(url, headers):
            return {"kind": "http", "url": url, "names": sorted(headers)} | _named(transport), dict(headers)
        case BuiltIn(name):
            return {"kind": "built_in", "name": name}, {}
        case _:
            assert_never(transport)


def transport_from_json(shown: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Transport:
    """The transport. Without its secrets, their names stand there with empty values."""
    values = {name: (secrets or {}).get(name, "") for name in shown.get("names", ())}
    credentials = shown.get("credentials", {})
    granter = UUID(shown["granter"]) if "granter" in shown else None
    match shown["kind"]:
        case "stdio":
            return Stdio(shown["command"], tuple(shown["arguments"]), values, credentials, granter)
        case "http":
            return Http(shown["url"], values, credentials, granter)
    return BuiltIn(shown["name"])


def _named(transport: Stdio | Http) -> dict[str, Any]:
    if not transport.credentials:
        return {}
    return {"credentials": dict(transport.credentials), "granter": str(transport.granter)}


def with_secrets_of(new: Transport, old: Transport) -> Transport:
    """The new transport, with the old one's values where it has a name without a value.

    Values stay with what they were given for: InvalidArgument when the command, or the URL's origin, is another one.
    """
    match new, old:
        case Stdio(), Stdio():
            same = (new.command, new.arguments) == (old.command, old.arguments)
            kept = _filled(new.environment, old.environment, "stdio.environment", same=same)
            return replace(new, environment=kept)
        case Http(), Http():
            same = urlsplit(new.url)[:2] == urlsplit(old.url)[:2]
            return replace(new, headers=_filled(new.headers, old.headers, "http.headers", same=same))
    return new


def _filled(new: Mapping[str, str], old: Mapping[str, str], field: str, *, same: bool) -> dict[str, str]:
    wanted = sorted(name for name, value in new.items() if not value and old.get(name))
    if wanted and not same:
        text = f"give the value of {wanted[0]} again: it was given for another command or host"
        raise InvalidArgument.field(f"mcp_server.{field}", text)
    return {name: value or old.get(name, "") for name, value in new.items()}
