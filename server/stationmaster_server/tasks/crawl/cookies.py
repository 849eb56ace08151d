"""The cookies of a crawl: one jar, bounded, that can be kept and brought back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http.cookiejar import Cookie as JarCookie
from http.cookiejar import CookieJar
from typing import Any

from stationmaster_server.tasks.crawl.settings import Cookie

_MOST = 500
_MOST_CHARACTERS = 4096
_KEPT = ("name", "value", "domain", "domain_specified", "path", "secure", "expires")


class Jar(CookieJar):
    """Takes no more than 500 cookies of 4,096 characters. `changes` grows when a cookie comes or has another value."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def set_cookie(self, cookie: JarCookie) -> None:
        """Keep a cookie, unless that would be too much."""
        known = {(other.domain, other.path, other.name): other.value for other in self}
        key = (cookie.domain, cookie.path, cookie.name)
        text = f"{cookie.name}={cookie.value or ''}"
        if len(text) > _MOST_CHARACTERS or not (text.isascii() and text.isprintable()):
            return  # it could not be sent back
        if key not in known and len(known) >= _MOST:
            return
        if known.get(key) != cookie.value:
            self.changes += 1
        super().set_cookie(cookie)


def jar_of(cookies: Sequence[Cookie], hosts: Iterable[str], kept: Sequence[dict[str, Any]]) -> Jar:
    """A jar with the cookies of the settings, and those of `dump` over them."""
    jar = Jar()
    for cookie in cookies:
        for domain in (cookie.domain,) if cookie.domain else hosts:
            jar.set_cookie(_made(cookie.name, cookie.value, _effective(domain), bool(cookie.domain), cookie.path))
    for one in kept:
        jar.set_cookie(_made(**one))
    return jar


def dump(jar: Jar) -> list[dict[str, Any]]:
    """The cookies as JSON."""
    return [{name: getattr(cookie, name) for name in _KEPT} for cookie in jar]


def _effective(domain: str) -> str:
    """As the standard library's jar calls a host: one without a dot is below `.local`."""
    return domain if "." in domain or ":" in domain else f"{domain}.local"


def _made(
    name: str,
    value: str | None,
    domain: str,
    domain_specified: bool,
    path: str,
    secure: bool = False,
    expires: int | None = None,
) -> JarCookie:
    return JarCookie(
        version=0,
        name=name,
        value=value,
        port=None,
        port_specified=False,
        domain=f".{domain.lstrip('.')}" if domain_specified else domain,
        domain_specified=domain_specified,
        domain_initial_dot=domain_specified,
        path=path,
        path_specified=True,
        secure=secure,
        expires=expires,
        discard=expires is None,
        comment=None,
        comment_url=None,
        rest={},
    )
