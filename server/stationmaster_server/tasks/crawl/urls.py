"""URLs in one spelling, so that a page is known by one name; and those that lead nowhere."""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

import idna

MAX_URL = 2000
_PORTS = {"http": 80, "https": 443}
_MOST_SEGMENTS = 24
_MOST_REPEATS = 3
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH = _UNRESERVED | frozenset("/!$&'()*+,;=:@")
_QUERY = _PATH | frozenset("?")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PIECE = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def normalise(text: str, base: str = "") -> str | None:
    """The one spelling of an http or https URL, `text` as found at `base`; None for what is no such URL.

    No fragment, no default port, no trailing dot of the host; host in lower case, in its ASCII form (IDNA); `.` and
    `..` resolved; percent-encoding where needed and nowhere else. The order of the query stays: it may matter. A URL
    with a user or a password is none, nor one of more than MAX_URL characters.
    """
    text = _CONTROLS.sub("", text).strip()
    if len(text) > 2 * MAX_URL:
        return None
    before, mark, after = text.partition("#")[0].partition("?")
    try:
        parts = urlsplit(urljoin(base, before.replace("\\", "/") + mark + after))
        port = parts.port
        host = _host(parts.hostname or "")
    except ValueError:
        return None
    if parts.scheme not in _PORTS or host is None or parts.username is not None or parts.password is not None:
        return None
    where = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    # Joining takes a last semicolon for the sign of parameters that are not there.
    semicolon = ";" if before.endswith(";") and not parts.path.endswith(";") else ""
    path = _without_dots(_quoted(parts.path + semicolon, _PATH)) or "/"
    query = _quoted(parts.query, _QUERY)
    url = f"{parts.scheme}://{where}{path}" + (f"?{query}" if query else "")
    return url if len(url) <= MAX_URL else None


def host_of(url: str) -> str:
    """The host of a normalised URL."""
    return urlsplit(url).hostname or ""


def origin_of(url: str) -> str:
    """Scheme, host and port of a normalised URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def is_endless(url: str) -> bool:
    """Whether a path looks like one that grows by itself: too deep, or one segment again and again."""
    segments = [segment for segment in urlsplit(url).path.split("/") if segment]
    return len(segments) > _MOST_SEGMENTS or max(Counter(segments).values(), default=0) > _MOST_REPEATS


def _host(host: str) -> str | None:
    if ":" in host:
        return None if "%" in host else f"[{ip_address(host).compressed}]"
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")
    host = host.lower().removesuffix(".")
    return host if len(host) <= 253 and _HOST.fullmatch(host) else None


def _quoted(text: str, allowed: frozenset[str]) -> str:
    return "".join(_piece(piece, allowed) for piece in _PIECE.findall(text))


def _piece(piece: str, allowed: frozenset[str]) -> str:
    if len(piece) == 3:
        plain = chr(int(piece[1:], 16))
        return plain if plain in _UNRESERVED else piece.upper()
    if piece in allowed:
        return piece
    return "".join(f"%{byte:02X}" for byte in piece.encode("utf-8", "replace"))


def _without_dots(path: str) -> str:
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
