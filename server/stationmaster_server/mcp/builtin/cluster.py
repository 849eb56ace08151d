"""A Kubernetes cluster as the server `kubernetes_readonly` sees it: kinds, objects, lists, logs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from stationmaster_server.config.mcp_builtin import McpKubernetesSettings
from stationmaster_server.mcp.builtin.kubernetes_gate import (
    ALL_NAMESPACES,
    Answer,
    ClusterRefused,
    ReadingOnly,
    check_names,
)
from stationmaster_server.mcp.builtin.manifest import without_secrets

logger = logging.getLogger(__name__)

_load_incluster_config: Any = load_incluster_config  # neither has types
_load_kube_config: Any = load_kube_config

_KINDS_FRESH_SECONDS = 300.0
_MOST_GROUPS = 300
_GROUPS_AT_ONCE = 8
_MESSAGE = 500
_OK, _UNAUTHORIZED = 200, 401


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that the cluster has."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    names: frozenset[str]
    """What it is called: plural, singular, short names and kind, in lower case."""

    @property
    def full_name(self) -> str:
        """Its plural, with its group unless that is the core."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """Where its objects are. ClusterRefused for what is no name: it could lead elsewhere."""
        check_names(namespace, name)
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{inside}/{self.plural}" + (f"/{name}" if name else "")


class Cluster:
    """Reads one cluster, for everybody who may. Raises ClusterRefused; connects with the first request."""

    def __init__(self, settings: McpKubernetesSettings) -> None:
        self._settings = settings
        self.namespaces = frozenset(settings.namespaces)
        self.max_items = settings.max_items
        self._client: ApiClient | None = None
        self._kinds: tuple[float, list[Kind]] = (0.0, [])
        self._discovering = asyncio.Lock()
        self._connecting = asyncio.Lock()

    def namespace(self, given: str) -> str:
        """The namespace that is meant: the only one that may be read, when none is given."""
        if given or ALL_NAMESPACES in self.namespaces:
            return given
        if len(self.namespaces) > 1:
            raise ClusterRefused(f"give a namespace; readable namespaces: {', '.join(sorted(self.namespaces))}")
        return next(iter(self.namespaces))

    async def get(self, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
        """One object; of a Secret without its data."""
        if not name:
            raise ClusterRefused(f"give the name of the {kind.kind}")
        if kind.namespaced and not namespace:
            raise ClusterRefused(f"give the namespace of the {kind.kind} {name!r}")
        return without_secrets(await self._json(kind.path(namespace, name)))

    async def list_objects(self, kind: Kind, namespace: str, **query: str) -> dict[str, Any]:
        """A list of objects; of Secrets without their data."""
        return without_secrets(await self._json(kind.path(namespace), **query))

    async def logs(self, pod: str, namespace: str, **query: str) -> str:
        """What a container of a pod wrote."""
        check_names(namespace, pod)
        data = await self._request(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", "text/plain", query)
        return data.decode(errors="replace")

    async def find(self, name: str) -> Kind:
        """The kind of this name (`pods`, `Pod`, `po`, `deployments.apps`), the core's before others'."""
        plain, _, group = name.lower().partition(".")
        for kind in await self.kinds():
            if plain in kind.names and group in ("", kind.group):
                return kind
        raise ClusterRefused(f"there is no kind {name!r} that can be read; list_kinds tells those that there are")

    async def kinds(self) -> list[Kind]:
        """Every kind whose objects can be read, the core's first; at most five minutes old."""
        async with self._discovering:
            now = asyncio.get_running_loop().time()
            fresh_until, kinds = self._kinds
            if not kinds or now > fresh_until:
                kinds = await self._discover()
                self._kinds = (now + _KINDS_FRESH_SECONDS, kinds)
            return kinds

    async def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            await self._client.rest_client.close()
            self._client = None

    async def _discover(self) -> list[Kind]:
        """Our own walk through the API's lists of kinds: the client's keeps a file in the shared temporary folder."""
        core = list(_kinds_in(await self._json("/api/v1"), "", "v1"))
        groups = (await self._json("/apis")).get("groups", [])[:_MOST_GROUPS]
        at_once = asyncio.Semaphore(_GROUPS_AT_ONCE)

        async def walk(group: Mapping[str, Any]) -> list[Kind]:
            name, version = group["name"], group["preferredVersion"]["version"]
            try:
                async with at_once:
                    return list(_kinds_in(await self._json(f"/apis/{name}/{version}"), name, version))
            except ClusterRefused as refusal:  # a group whose own server is away does not hide the others
                logger.info("the kinds of %s cannot be read: %s", name, refusal)
                return []

        return core + [kind for found in await asyncio.gather(*map(walk, groups)) for kind in found]

    async def _json(self, path: str, **query: str) -> dict[str, Any]:
        found = json.loads(await self._request(path, "application/json", query))
        if not isinstance(found, dict):
            raise ClusterRefused("the cluster answered with something that is no object")
        return found

    async def _request(self, path: str, accept: str, query: Mapping[str, str]) -> bytes:
        client = await self._connected()
        answer = await self._send(client, path, accept, query)
        if answer.status == _UNAUTHORIZED:  # tokens of cloud providers live for minutes: take up the newest
            await self._configure(client.configuration)
            answer = await self._send(client, path, accept, query)
        if answer.status != _OK:
            raise ClusterRefused(_told(answer))
        return answer.data

    async def _send(self, client: ApiClient, path: str, accept: str, query: Mapping[str, str]) -> Answer:
        try:
            request = await client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
            )
            answer: Any = await client.call_api(*request)
        except TimeoutError:
            limit = self._settings.request_timeout.total_seconds()
            raise ClusterRefused(f"the cluster did not answer within {limit:g} s; try again or ask for less") from None
        except (aiohttp.ClientError, OSError) as error:
            logger.warning("the cluster of mcp.kubernetes cannot be reached: %s", error)
            raise ClusterRefused("the cluster cannot be reached; the reason is in the server's log") from error
        assert isinstance(answer, Answer)  # noqa: S101 - of our HTTP layer
        return answer

    async def _connected(self) -> ApiClient:
        async with self._connecting:
            if self._client is None:
                configuration = Configuration()
                await self._configure(configuration)
                client = ApiClient(configuration)
                limit = self._settings.request_timeout.total_seconds()
                client.rest_client = ReadingOnly(configuration, self.namespaces, limit)
                self._client = client
            return self._client

    async def _configure(self, configuration: Configuration) -> None:
        settings = self._settings
        try:
            if settings.kubeconfig is None:
                _load_incluster_config(client_configuration=configuration)
                return
            await _load_kube_config(
                config_file=str(settings.kubeconfig),
                context=settings.context,
                client_configuration=configuration,
                persist_config=False,
            )
        except (ConfigException, OSError) as error:
            logger.warning("mcp.kubernetes cannot be used: %s", error)
            raise ClusterRefused("the cluster is not set up right; the reason is in the server's log") from error


def _kinds_in(resources: Mapping[str, Any], group: str, version: str) -> Iterator[Kind]:
    for resource in resources.get("resources", []):
        plural = resource["name"]
        if "/" in plural or "get" not in resource.get("verbs", ()):
            continue
        called = (plural, resource.get("singularName", ""), resource["kind"], *resource.get("shortNames", ()))
        names = frozenset(name.lower() for name in called if name)
        yield Kind(group, version, plural, resource["kind"], bool(resource.get("namespaced")), names)


def _told(answer: Answer) -> str:
    """What the cluster says went wrong: the message of its Status, or the HTTP reason."""
    try:
        message = json.loads(answer.data)["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.reason
    return f"the cluster answers {answer.status}: {str(message)[:_MESSAGE]}"
