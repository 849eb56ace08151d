"""The one place through which every request to a Kubernetes cluster passes: GET, for objects and pod logs, only.

It stands below the official client: whatever that is asked to do, nothing else leaves this process.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

MAX_RESPONSE = 4 * 1024 * 1024
ALL_NAMESPACES = "*"
# Also keeps out `..`, escapes (`%2e`), and empty segments. Names of roles hold colons and capitals.
_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")
_ACTING = frozenset({"proxy", "watch", "redirect"})  # old forms of paths that do more than read an object
_QUERIES = frozenset(
    {
        "container",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "limitBytes",
        "previous",
        "sinceSeconds",
        "tailLines",
        "timestamps",
    }
)


class ClusterRefused(Exception):
    """The request was refused, here or by the cluster; the message says why, and is for the caller."""


def check_path(path: str, query: Collection[str], namespaces: Collection[str]) -> None:
    """Let only what reads pass: versions, kinds, objects and lists of the namespaces, logs. Raises ClusterRefused."""
    segments = path.removeprefix("/").split("/")
    check_names(*(segment or "/" for segment in segments))
    if not _QUERIES.issuperset(query):
        raise ClusterRefused("this way of asking is refused: only objects, lists, events and logs can be read")
    match segments:
        case ["version"] | ["api"] | ["apis"] | ["api", _] | ["apis", _, _]:
            return
        case ["api", _, *rest] | ["apis", _, _, *rest]:
            _check_object(rest, namespaces)
        case _:
            raise ClusterRefused("this path is refused: only objects, lists, events and logs can be read")


def check_names(*names: str) -> None:
    """ClusterRefused when one is neither empty nor a name."""
    for name in names:
        if name and not _SEGMENT.fullmatch(name):
            raise ClusterRefused(f"{name[:253]!r} is no name: it may hold letters, digits, `.`, `-`, `_` and `:` only")


def _check_object(path: list[str], namespaces: Collection[str]) -> None:
    if path[0] in _ACTING:
        raise ClusterRefused(f"{path[0]!r} is refused: only objects, lists, events and logs can be read")
    match path:
        case ["namespaces", namespace] | ["namespaces", namespace, _] | ["namespaces", namespace, _, _]:
            check_namespace(namespace, namespaces)
        case ["namespaces", namespace, "pods", _, "log"]:
            check_namespace(namespace, namespaces)
        case [_] | [_, _]:
            if ALL_NAMESPACES not in namespaces:
                raise ClusterRefused(
                    "what belongs to no namespace or to all of them cannot be read here; readable namespaces: "
                    + ", ".join(sorted(namespaces))
                )
        case _:
            raise ClusterRefused("this part of an object is refused: below objects only the logs of pods can be read")


def check_namespace(namespace: str, namespaces: Collection[str]) -> None:
    """ClusterRefused when the namespace is none of those that may be read."""
    if ALL_NAMESPACES not in namespaces and namespace not in namespaces:
        readable = ", ".join(sorted(namespaces))
        raise ClusterRefused(f"the namespace {namespace!r} cannot be read here; readable namespaces: {readable}")


class Answer:
    """What came back, as the client wants it."""

    def __init__(self, status: int, reason: str, data: bytes) -> None:
        self.status = status
        self.reason = reason
        self.data = data


class ReadingOnly(RESTClientObject):
    """The HTTP layer of the official client, which sends nothing but GETs that `check_path` lets pass."""

    def __init__(self, configuration: Configuration, namespaces: Collection[str], timeout: float) -> None:
        super().__init__(configuration)  # TLS and proxy as the kubeconfig says
        self._host = str(configuration.host).rstrip("/")
        self._namespaces = namespaces
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        post_params: object = None,
        _request_timeout: object = None,
    ) -> Answer:
        """Send a GET and read its answer, at most 4 MiB. Raises ClusterRefused."""
        if method != "GET" or body or post_params:
            raise ClusterRefused(f"{method} is refused: this cluster can only be read")
        if not url.startswith(f"{self._host}/"):
            raise ClusterRefused("this address is refused: it is not the cluster's")
        parts = urlsplit(url.removeprefix(self._host))
        query = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20)
        check_path(parts.path, {name for name, _ in query}, self._namespaces)
        return await self._get(self._host + parts.path, query, headers or {})

    async def _get(self, url: str, query: list[tuple[str, str]], headers: Mapping[str, str]) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._create_connector())
        options: dict[str, Any] = {"proxy": self.proxy, "proxy_headers": self.proxy_headers}
        if self.configuration.tls_server_name:
            options["server_hostname"] = self.configuration.tls_server_name
        async with self._session.get(
            url, params=query, headers=headers, timeout=self._timeout, allow_redirects=False, **options
        ) as response:
            data = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                data += chunk
                if len(data) > MAX_RESPONSE:
                    raise ClusterRefused(f"the cluster's answer is larger than {MAX_RESPONSE} bytes: ask for less")
            return Answer(response.status, response.reason or "", bytes(data))

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
