"""Finds the server and the key: arguments, environment, configuration file, then the server of this machine."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

DEFAULT_TARGET = "127.0.0.1:50151"
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_HOST_AND_PORT = re.compile(r"(\[[^]]+\]|[^\s:/\[\]]+):\d{1,5}")
_FILE_FIELDS = ("api_key_file", "ca", "certificate", "key")
_CONTEXT_FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("target", "api_key", "server_name", *_FILE_FIELDS), str),
    **dict.fromkeys(("insecure", "tls"), bool),
}


class ConfigurationError(Exception):
    """The settings cannot be used; the message says which and what to write instead."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of an encrypted connection. Without `ca` the system's authorities are trusted."""

    ca: Path | None = None
    certificate: Path | None = None
    """With `key`: shown to the server (mutual TLS)."""
    key: Path | None = None
    server_name: str = ""
    """The name in the server's certificate, where it differs from the target's."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and how to talk to it."""

    target: str
    api_key: str | None = None
    tls: Tls | None = None
    source: str = "default"
    """Where the target was found, for people."""


def resolve(
    target: str | None = None,
    api_key: str | None = None,
    *,
    context: str | None = None,
    tls: Tls | None = None,
    insecure: bool | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """Find what is not given: in the environment, in the configuration file, in the data folder of a local server.

    A key is only ever sent to the target it was found with. Without `tls` or `insecure`, other hosts than this one are
    spoken to encrypted.

    Raises ConfigurationError when the file cannot be read or has no such context.
    """
    env = os.environ if environ is None else environ
    if target and context:
        raise ConfigurationError(f"give a target ({target}) or a context ({context}), not both")
    chosen = context or env.get("STATIONMASTER_CONTEXT") or None
    entry: Mapping[str, Any] = {}
    source = "argument"
    wanted = target or (None if context else env.get("STATIONMASTER_TARGET"))
    if wanted is None:
        source, entry = _configured(config_file(env), chosen)
        if not entry:
            source, entry = _local(data_folder(env))
        wanted = str(entry.get("target") or DEFAULT_TARGET)
    else:
        source = "argument" if target else "environment"
        _, local = _local(data_folder(env))
        entry = local if local.get("target") == wanted else {}
    _check_target(wanted, source)
    key = api_key or env.get("STATIONMASTER_API_KEY") or _key(entry, source)
    return Connection(wanted, key, _tls(tls, insecure, wanted, entry, env), source)


def config_file(env: Mapping[str, str]) -> Path:
    """`client.toml` in the user's configuration folder."""
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stationmaster" / "client.toml"


def data_folder(env: Mapping[str, str]) -> Path:
    """The data folder that a server of this user has by default."""
    if chosen := env.get("STATIONMASTER_DATA_FOLDER"):
        return Path(chosen)
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/stationmaster")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "stationmaster"
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "stationmaster"
    return Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "stationmaster"


def _configured(file: Path, context: str | None) -> tuple[str, Mapping[str, Any]]:
    """Read one context of the configuration file: the one named, else its `current`."""
    try:
        document = tomllib.loads(file.read_text())
    except FileNotFoundError:
        document = {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    name = context or document.get("current")
    if name is None:
        return "default", {}
    entry = document.get("contexts", {}).get(name)
    if not isinstance(entry, dict) or "target" not in entry:
        known = ", ".join(sorted(document.get("contexts", {}))) or "none"
        raise ConfigurationError(f"{file} has no context {name!r} with a target; there are: {known}")
    _check_fields(file, name, entry)
    return f"context {name}", entry


def _check_target(target: str, source: str) -> None:
    """Raise for what gRPC would take for a host that nobody has, or ask on a port that nobody meant."""
    if not target.startswith(_SCHEMES) and not _HOST_AND_PORT.fullmatch(target):
        raise ConfigurationError(f"{target!r} ({source}) is no target: write HOST:PORT, such as {DEFAULT_TARGET}")


def _check_fields(file: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Raise what a misspelt field, or one that names a file that is not there, would otherwise hide."""
    for field, value in entry.items():
        wanted = _CONTEXT_FIELDS.get(field)
        if wanted is None:
            known = ", ".join(sorted(_CONTEXT_FIELDS))
            raise ConfigurationError(f"{file}: context {name!r} has an unknown field {field!r}; there are: {known}")
        if not isinstance(value, wanted):
            kind = "true or false" if wanted is bool else "a string"
            raise ConfigurationError(f"{file}: {field} of context {name!r} must be {kind}")
        if field in _FILE_FIELDS and value and not Path(str(value)).expanduser().is_file():
            raise ConfigurationError(f"{file}: {field} of context {name!r} names {value}, which is no file")


def _local(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """What the server of this machine wrote down when it started."""
    try:
        entry = dict(json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError):
        return "default", {}
    return f"local server ({folder})", {"api_key_file": str(folder / "admin.key"), **entry}


def _key(entry: Mapping[str, Any], source: str) -> str | None:
    if key := entry.get("api_key"):
        return str(key)
    if not (file := entry.get("api_key_file")):
        return None
    try:
        return Path(file).expanduser().read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"the API key in {file} ({source}) cannot be read: {error.strerror}") from error


def _tls(
    tls: Tls | None, insecure: bool | None, target: str, entry: Mapping[str, Any], env: Mapping[str, str]
) -> Tls | None:
    """Decide whether to encrypt, and with which files."""
    if tls is not None:
        return tls
    ca, certificate, key = (
        env.get(f"STATIONMASTER_TLS_{part.upper()}") or entry.get(part) for part in ("ca", "certificate", "key")
    )
    if insecure is None:
        insecure = env.get("STATIONMASTER_INSECURE") == "1" or bool(entry.get("insecure"))
    if ca or certificate or key or entry.get("tls"):
        return Tls(_path(ca), _path(certificate), _path(key), str(entry.get("server_name") or ""))
    return None if insecure or is_local(target) else Tls()


def _path(value: Any) -> Path | None:
    return Path(str(value)).expanduser() if value else None


def is_local(target: str) -> bool:
    """Whether the target is on this machine, where nobody listens in."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
