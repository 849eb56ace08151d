"""A Kubernetes API of a few objects, over HTTP on loopback, that remembers everything it was asked."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from stationmaster_server.config.mcp_builtin import McpKubernetesSettings

TOKEN = "the-token-of-the-kubeconfig"
SECRET = base64.b64encode(b"hunter2").decode()
Object = dict[str, Any]


def resource(name: str, kind: str, *, namespaced: bool = True, short: str = "", **others: Any) -> Object:
    """A kind, as discovery tells it."""
    names = {"singularName": kind.lower(), "shortNames": [short] if short else []}
    return {"name": name, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list", "delete"], **names, **others}


KINDS: dict[str, list[Object]] = {
    "/api/v1": [
        resource("pods", "Pod", short="po"),
        resource("pods/exec", "PodExecOptions"),
        resource("pods/log", "Pod"),
        resource("configmaps", "ConfigMap", short="cm"),
        resource("secrets", "Secret"),
        resource("events", "Event", short="ev"),
        resource("nodes", "Node", namespaced=False, short="no"),
        resource("namespaces", "Namespace", namespaced=False, short="ns"),
        resource("bindings", "Binding", verbs=["create"]),
    ],
    "/apis/apps/v1": [resource("deployments", "Deployment", short="deploy"), resource("replicasets", "ReplicaSet")],
    "/apis/example.com/v1beta1": [resource("widgets", "Widget")],
}
GROUPS = [("apps", "v1"), ("broken.example.com", "v1"), ("example.com", "v1beta1")]


def thing(kind: str, name: str, namespace: str = "shop", **others: Any) -> Object:
    """An object."""
    metadata = {
        "name": name,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        **({"namespace": namespace} if namespace else {}),
        **others.pop("metadata", {}),
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **others}


def owned_by(kind: str, name: str, group: str = "apps/v1") -> Object:
    """Metadata of an object that another one controls."""
    return {"ownerReferences": [{"apiVersion": group, "kind": kind, "name": name, "controller": True}]}


def objects() -> dict[str, list[Object]]:
    """Objects by the path of their list."""
    shop = "/api/v1/namespaces/shop"
    last = {
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data":{{"password":"{SECRET}"}}}}'}
    }
    waiting = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
    return {
        f"{shop}/pods": [
            thing(
                "Pod",
                "web-1",
                metadata=owned_by("ReplicaSet", "web"),
                status={"phase": "Running"},
                spec={"nodeName": "n"},
            ),
            thing("Pod", "web-2", status=waiting),
        ],
        f"{shop}/configmaps": [thing("ConfigMap", "settings", data={"color": "blue"})],
        f"{shop}/secrets": [
            thing("Secret", "login", data={"password": SECRET}, stringData={"plain": "hunter2"}, metadata=last)
        ],
        f"{shop}/events": [
            thing(
                "Event",
                f"event-{number}",
                involvedObject={"kind": "Pod", "name": f"web-{number}"},
                type="Warning",
                reason="BackOff",
                message=f"restarting web-{number}",
                lastTimestamp=f"2026-01-01T00:00:0{number}Z",
                count=number,
            )
            for number in (1, 2)
        ],
        "/apis/apps/v1/namespaces/shop/replicasets": [
            thing("ReplicaSet", "web", metadata=owned_by("Deployment", "web"))
        ],
        "/apis/apps/v1/namespaces/shop/deployments": [
            thing("Deployment", "web", spec={"replicas": 3}, status={"readyReplicas": 2})
        ],
        "/apis/example.com/v1beta1/namespaces/shop/widgets": [thing("Widget", "round", spec={"size": 3})],
        "/api/v1/namespaces/kube-system/secrets": [thing("Secret", "root", "kube-system", data={"key": SECRET})],
        "/api/v1/nodes": [thing("Node", "n", "", status={"conditions": [{"type": "Ready", "status": "True"}]})],
        "/api/v1/namespaces": [thing("Namespace", "shop", "", status={"phase": "Active"})],
    }


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str
    upgrade: str


@dataclass
class FakeCluster:
    """The API and what it was asked."""

    kubeconfig: Path
    objects: dict[str, list[Object]] = field(default_factory=objects)
    asked: list[Asked] = field(default_factory=list)
    accepted: str = TOKEN
    log: str = "one\ntwo\nthree\n"
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, *namespaces: str, **others: Any) -> McpKubernetesSettings:
        """Settings that lead here."""
        given = {"organizations": ["*"], "kubeconfig": self.kubeconfig, "namespaces": list(namespaces) or ["shop"]}
        return McpKubernetesSettings.model_validate(given | others)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        path = request.path
        self.asked.append(
            Asked(
                request.method,
                request.raw_path,
                dict(request.query),
                request.headers.get("Authorization", ""),
                request.headers.get("Upgrade", ""),
            )
        )
        if request.headers.get("Authorization") != f"Bearer {self.accepted}":
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        if path == "/apis":
            groups = [{"name": name, "preferredVersion": {"version": version}} for name, version in GROUPS]
            return web.json_response({"kind": "APIGroupList", "groups": groups})
        if path in KINDS:
            return web.json_response({"kind": "APIResourceList", "resources": KINDS[path]})
        if path.endswith("/moved"):
            raise web.HTTPFound("/api/v1/namespaces/kube-system/secrets")
        if path.endswith("/silent"):
            await self.silent.wait()
        if path.endswith("/log"):
            return web.Response(text=self.log)
        return self._objects(path, request.query.get("fieldSelector", ""), int(request.query.get("limit", 1000)))

    def _objects(self, path: str, selector: str, limit: int) -> web.Response:
        if path in self.objects:
            items = [{key: value for key, value in one.items() if key != "kind"} for one in self.objects[path]]
            for wanted in filter(None, selector.split(",")):
                name, _, value = wanted.partition("=")
                items = [one for one in items if one["involvedObject"][name.removeprefix("involvedObject.")] == value]
            kind = {one["kind"] for one in self.objects[path]}.pop() + "List"
            more = {"continue": "further"} if len(items) > limit else {}
            return web.json_response({"kind": kind, "metadata": more, "items": items[:limit]})
        parent, _, name = path.rpartition("/")
        for one in self.objects.get(parent, []):
            if one["metadata"]["name"] == name:
                return web.json_response(one)
        return web.json_response({"kind": "Status", "message": f'"{name}" not found'}, status=404)


@asynccontextmanager
async def open_cluster(folder: Path) -> AsyncIterator[FakeCluster]:
    """The API on a free port of loopback, and a kubeconfig that leads to it."""
    cluster = FakeCluster(folder / "kubeconfig")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cluster.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        cluster.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{port}")))
        yield cluster
    finally:
        cluster.silent.set()
        await runner.cleanup()


def _kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "elsewhere",
        "clusters": [
            {"name": "here", "cluster": {"server": server}},
            {"name": "elsewhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me"}},
            {"name": "elsewhere", "context": {"cluster": "elsewhere", "user": "me"}},
        ],
    }
