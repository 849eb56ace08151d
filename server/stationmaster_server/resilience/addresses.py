"""Which addresses are of the public internet, and what the others are."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Asked in this order: the first that holds an address names its class.
_REFUSED = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("169.254.169.254/32", "cloud metadata"),
        ("168.63.129.16/32", "cloud metadata"),
        ("100.100.100.200/32", "cloud metadata"),
        ("192.0.0.192/32", "cloud metadata"),
        ("fd00:ec2::/32", "cloud metadata"),
        ("fd20:ce::254/128", "cloud metadata"),
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "reserved"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")


def plain(text: str) -> Address:
    """The address that `text` writes; IPv4 that is wrapped into IPv6 (`::ffff:127.0.0.1`) comes unwrapped."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def refusal(address: Address) -> str | None:
    """Why an address is not of the public internet: its class (`loopback`, `private`, ...); None if it is public.

    From IANA's registries of special-purpose addresses, and what clouds serve their metadata at. A translated address
    (NAT64) is what it is translated to. An IPv6 address outside the block that is given out (2000::/3) is `reserved`.
    """
    for network, kind in _REFUSED:
        if address in network:
            return kind
    if isinstance(address, IPv4Address):
        return None if address.is_global else "reserved"
    if address in _NAT64:
        return refusal(IPv4Address(int(address) & 0xFFFFFFFF))
    return None if address in _UNICAST and address.is_global else "reserved"
