"""The MCP server `kubernetes_readonly`: nothing but harmless GETs ever arrives, whatever is asked."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio.client import AppsV1Api, CoreV1Api, V1Eviction, V1ObjectMeta, V1Pod
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config
from stationmaster_server.mcp.builtin.cluster import Cluster
from stationmaster_server.mcp.builtin.kubernetes_gate import ClusterRefused, ReadingOnly
from stationmaster_server.mcp.builtin.kubernetes_readonly import make_server

from tests.mcp.builtin.calling import refusal
from tests.mcp.builtin.kubernetes_api import SECRET, FakeCluster, open_cluster

_load_kube_config: Any = load_kube_config


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with open_cluster(tmp_path) as cluster:
        yield cluster
    harmless = ("/api", "/apis", "/version")
    assert {asked.method for asked in cluster.asked} <= {"GET"}
    assert not any(asked.upgrade for asked in cluster.asked)
    for asked in cluster.asked:
        path = asked.path.partition("?")[0]
        assert path.startswith(harmless)
        assert "watch" not in asked.query
        for acting in ("exec", "attach", "portforward", "proxy", "..", "%", "kube-system", "watch", "eviction"):
            assert acting not in path


@pytest_asyncio.fixture
async def cluster(api: FakeCluster) -> AsyncIterator[Cluster]:
    cluster = Cluster(api.settings("shop", context="here"))
    yield cluster
    await cluster.close()


@pytest_asyncio.fixture
async def client(api: FakeCluster) -> AsyncIterator[ApiClient]:
    """The official client on our HTTP layer, for whatever a program could ask of it."""
    configuration = Configuration()
    await _load_kube_config(config_file=str(api.kubeconfig), context="here", client_configuration=configuration)
    client = ApiClient(configuration)
    client.rest_client = ReadingOnly(configuration, {"shop"}, timeout=5.0)
    yield client
    await client.rest_client.close()


SNEAKY = [
    "../kube-system",
    "shop/../kube-system",
    "..",
    ".",
    "shop/secrets?limit=",
    "shop/secrets/login?limit=",
    "shop/pods/web-1/exec?command=id#",
    "shop/pods/web-1/exec",
    "shop#",
    "shop%2f..%2fkube-system",
    "%2e%2e",
    "shop\\..\\kube-system",
    "shop\r\nX-Injected: 1",
    "shop ",
    "shóp",
    "",
]


@pytest.mark.parametrize("namespace", SNEAKY[:-1])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("list_resources", {"kind": "pods"}),
        ("get", {"kind": "configmaps", "name": "settings"}),
        ("describe", {"kind": "configmaps", "name": "settings"}),
        ("logs", {"pod": "web-1"}),
        ("events", {}),
    ],
)
async def test_namespace_that_is_no_name_leads_nowhere(
    cluster: Cluster, tool: str, arguments: dict[str, str], namespace: str
) -> None:
    told = await refusal(make_server(cluster), tool, namespace=namespace, **arguments)
    assert "is no name" in told
    assert SECRET not in told


@pytest.mark.parametrize("name", [*SNEAKY, "web-1/exec", "web-1/log", "web-1/proxy/", "web-1?watch=true", "web-1/../x"])
@pytest.mark.parametrize("tool", ["get", "describe", "logs"])
async def test_object_name_that_is_no_name_leads_nowhere(cluster: Cluster, tool: str, name: str) -> None:
    arguments = {"pod": name} if tool == "logs" else {"kind": "pods", "name": name}
    told = await refusal(make_server(cluster), tool, **arguments)
    assert "is no name" in told or "at least 1 character" in told


@pytest.mark.parametrize("kind", ["../pods", "pods/exec", "pods/../secrets", "pods?x=", "pods.apps/v1", "%70ods"])
async def test_kind_that_is_no_kind_leads_nowhere(cluster: Cluster, kind: str) -> None:
    assert "there is no kind" in await refusal(make_server(cluster), "get", kind=kind, name="web-1")


@pytest.mark.parametrize("tool", ["list_resources", "get", "describe", "logs", "events"])
async def test_other_namespaces_cannot_be_read(cluster: Cluster, tool: str) -> None:
    arguments: dict[str, dict[str, str]] = {
        "list_resources": {"kind": "secrets"},
        "get": {"kind": "secrets", "name": "root"},
        "describe": {"kind": "secrets", "name": "root"},
        "logs": {"pod": "web-1"},
        "events": {},
    }
    told = await refusal(make_server(cluster), tool, namespace="kube-system", **arguments[tool])
    assert "'kube-system' cannot be read here; readable namespaces: shop" in told


async def test_selectors_and_tokens_stay_in_their_place(api: FakeCluster, cluster: Cluster) -> None:
    kind = await cluster.find("configmaps")
    await cluster.list_objects(kind, "shop", labelSelector="a=b&watch=true#", **{"continue": "x&limit=9"})
    assert api.asked[-1].query == {"labelSelector": "a=b&watch=true#", "continue": "x&limit=9"}


async def test_redirect_is_not_followed(cluster: Cluster) -> None:
    with pytest.raises(ClusterRefused, match="the cluster answers 302"):
        await cluster.get(await cluster.find("pods"), "moved", "shop")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "CONNECT"])
async def test_no_other_method_than_get_is_sent(client: ApiClient, method: str) -> None:
    request = await client.param_serialize(method, "/api/v1/namespaces/shop/pods/web-1")
    with pytest.raises(ClusterRefused, match="can only be read"):
        await client.call_api(*request)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/shop/pods/web-1/exec",
        "/api/v1/namespaces/shop/pods/web-1/attach",
        "/api/v1/namespaces/shop/pods/web-1/portforward",
        "/api/v1/namespaces/shop/pods/web-1/proxy",
        "/api/v1/namespaces/shop/pods/web-1/proxy/admin",
        "/api/v1/namespaces/shop/pods/web-1/ephemeralcontainers",
        "/api/v1/namespaces/shop/services/web:80/proxy/",
        "/api/v1/namespaces/shop/configmaps/x/log",
        "/api/v1/nodes/n/proxy/run",
        "/api/v1/proxy/nodes/n",
        "/api/v1/watch/pods",
        "/api/v1/watch/namespaces/shop/pods",
        "/api/v1/namespaces/kube-system/secrets/root",
        "/api/v1/namespaces/kube-system",
        "/api/v1/secrets",
        "/api/v1/nodes",
        "/api/v1/namespaces/shop/../kube-system/secrets",
        "/api/v1//namespaces/kube-system/secrets",
        "/api/v1/namespaces/shop/pods/",
        "/apis/apps/v1/namespaces/shop/deployments/web/scale",
        "/logs/",
        "/metrics",
        "/debug/pprof",
        "/openapi/v2",
        "",
        "/",
        "@127.0.0.1:1/api",
    ],
)
async def test_no_other_path_than_those_that_read_is_sent(api: FakeCluster, client: ApiClient, path: str) -> None:
    request = await client.param_serialize("GET", path)
    with pytest.raises(ClusterRefused):
        await client.call_api(*request)
    assert api.asked == []


@pytest.mark.parametrize("query", ["watch", "follow", "command", "stdin", "dryRun", "timeoutSeconds", "path"])
async def test_no_other_query_than_those_that_read_is_sent(api: FakeCluster, client: ApiClient, query: str) -> None:
    request = await client.param_serialize("GET", "/api/v1/namespaces/shop/pods", query_params=[(query, "true")])
    with pytest.raises(ClusterRefused):
        await client.call_api(*request)
    assert api.asked == []


async def test_writing_and_executing_calls_of_the_official_client_are_refused(
    api: FakeCluster, client: ApiClient
) -> None:
    core, apps = CoreV1Api(client), AppsV1Api(client)
    pod, named = V1Pod(), V1ObjectMeta(name="web-1")
    for asking in (
        core.create_namespaced_pod("shop", pod),
        core.delete_namespaced_pod("web-1", "shop"),
        core.patch_namespaced_pod("web-1", "shop", pod),
        core.create_namespaced_pod_eviction("web-1", "shop", V1Eviction(metadata=named)),
        core.connect_get_namespaced_pod_exec("web-1", "shop", command=["id"]),
        core.connect_post_namespaced_pod_exec("web-1", "shop", command=["id"]),
        core.connect_get_namespaced_pod_proxy("web-1", "shop"),
        core.connect_get_namespaced_pod_portforward("web-1", "shop"),
        apps.patch_namespaced_deployment_scale("web", "shop", {"spec": {"replicas": 0}}),
        apps.delete_collection_namespaced_deployment("shop"),
    ):
        with pytest.raises(ClusterRefused):
            await asking
    assert api.asked == []


def test_secret_of_the_tests_is_what_it_seems() -> None:
    assert base64.b64decode(SECRET) == b"hunter2"
