"""Ports: whether one can be had, said in words that help."""

from __future__ import annotations

import errno
import socket

from stationmaster_server.config import StartupError


def address_of(host: str, port: int) -> str:
    """Return `host:port` as gRPC writes it."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def claim(host: str, port: int, *, shared: bool = False, setting: str = "server.port") -> None:
    """Raise StartupError unless the port is free. `shared`: other processes of this server may listen on it too."""
    if port == 0:
        return
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise StartupError(_explain(error, host, port, setting)) from None


def reserve(host: str, port: int) -> socket.socket:
    """Return a bound socket that holds the port for processes that share it, without listening itself."""
    claim(host, port)
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    holder = socket.socket(family, kind, protocol)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(address)
    return holder


def _explain(error: OSError, host: str, port: int, setting: str) -> str:
    where = address_of(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; stop it or set {setting} to another port (0: any free one)"
    if error.errno == errno.EACCES:
        return f"{where} needs more rights than this user has; set {setting} to a port above 1023"
    return f"cannot listen on {where}: {error.strerror or error}; is the host an address of this machine?"
