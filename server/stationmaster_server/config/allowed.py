"""Entries of `outbound.allow`: which hosts may be reached although their addresses are not public."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

_NAME = re.compile(r"(\*\.)?(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PORT = re.compile(r"\[(?P<bracketed>[^\]]+)\](:(?P<a>\d+))?|(?P<plain>[^:]+):(?P<b>\d+)")


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry: a network, or a name (`*.suffix` for all names below it), and perhaps a port."""

    network: IPv4Network | IPv6Network | None
    name: str
    port: int | None

    def covers_name(self, name: str, port: int) -> bool:
        """Whether whatever `name` resolves to is allowed at this port."""
        if self.network is not None or self.port not in (None, port):
            return False
        return name.endswith(self.name[1:]) if self.name.startswith("*.") else name == self.name

    def covers_address(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Whether this address is allowed at this port."""
        return self.network is not None and self.port in (None, port) and address in self.network


def parse_allowed(entry: str) -> Allowed:
    """Read `name`, `*.suffix`, an address or a network, each with `:port` or without (IPv6 with a port: `[::1]:80`).

    Raises ValueError.
    """
    text = entry.strip().lower()
    split = _PORT.fullmatch(text)
    port = None
    if split is not None:
        text = split["bracketed"] or split["plain"]
        digits = split["a"] or split["b"]
        port = int(digits) if digits else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{entry!r}: a port is between 1 and 65535")
    try:
        return Allowed(ip_network(text), "", port)
    except ValueError:
        name = text.removesuffix(".")
        if "/" in text or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
            raise ValueError(
                f"{entry!r}: write a host name, *.suffix, an address or a network (10.0.0.0/8), perhaps with :port"
            ) from None
        return Allowed(None, name, port)
