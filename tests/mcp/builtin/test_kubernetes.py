"""The MCP server `kubernetes_readonly`: what it answers, through the official client over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp import Client
from mcp.server.mcpserver import MCPServer
from pydantic import ValidationError
from stationmaster_server.config.mcp_builtin import McpKubernetesSettings
from stationmaster_server.mcp.builtin import text
from stationmaster_server.mcp.builtin.cluster import Cluster
from stationmaster_server.mcp.builtin.kubernetes_gate import MAX_RESPONSE, ClusterRefused
from stationmaster_server.mcp.builtin.kubernetes_readonly import make_server

from tests.mcp.builtin.calling import answer, call, refusal, text_of
from tests.mcp.builtin.kubernetes_api import SECRET, TOKEN, FakeCluster, open_cluster, thing

Serve = Callable[..., MCPServer]


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with open_cluster(tmp_path) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def serve(api: FakeCluster) -> AsyncIterator[Serve]:
    """Makes servers for some namespaces; nothing but GET has arrived when they end."""
    clusters = []

    def make(*namespaces: str, **settings: Any) -> MCPServer:
        clusters.append(Cluster(api.settings(*namespaces, **({"context": "here"} | settings))))
        return make_server(clusters[-1])

    yield make
    for cluster in clusters:
        await cluster.close()
    assert {asked.method for asked in api.asked} <= {"GET"}
    assert not any(asked.upgrade for asked in api.asked)


async def test_kinds_are_discovered_custom_ones_too(serve: Serve) -> None:
    kinds = (await answer(serve(), "list_kinds"))["kinds"]
    assert {kind["name"] for kind in kinds} == {
        *("pods", "configmaps", "secrets", "events", "nodes", "namespaces"),
        *("deployments.apps", "replicasets.apps", "widgets.example.com"),
    }


@pytest.mark.parametrize("kind", ["pods", "Pod", "pod", "po"])
async def test_list_tells_names_age_and_status(serve: Serve, kind: str) -> None:
    items = (await answer(serve(), "list_resources", kind=kind))["items"]
    assert [(item["namespace"], item["name"], item["status"]) for item in items] == [
        ("shop", "web-1", "Running"),
        ("shop", "web-2", "CrashLoopBackOff"),
    ]
    assert items[0]["age"].endswith("d")


@pytest.mark.parametrize(
    ("kind", "name"), [("deploy", "web"), ("deployments.apps", "web"), ("widgets.example.com", "round")]
)
async def test_objects_of_every_group_can_be_read(serve: Serve, kind: str, name: str) -> None:
    assert f"name: {name}" in (await answer(serve(), "get", kind=kind, name=name))["text"]


async def test_what_discovery_does_not_list_for_reading_is_no_kind(serve: Serve) -> None:
    server = serve()
    for kind in ("bindings", "pods/exec", "nothing", "pods.apps"):
        assert "there is no kind" in await refusal(server, "list_resources", kind=kind)


async def test_list_is_limited_and_goes_on(api: FakeCluster, serve: Serve) -> None:
    api.objects["/api/v1/namespaces/shop/pods"] = [thing("Pod", f"p-{number}") for number in range(50)]
    server = serve(max_items=10)
    found = await answer(server, "list_resources", kind="pods", limit=1000)
    assert len(found["items"]) == 10
    assert found["continue_token"] == "further"
    await answer(server, "list_resources", kind="pods", continue_token="further", label_selector="app=web")
    assert api.asked[-1].query == {"limit": "10", "continue": "further", "labelSelector": "app=web"}


async def test_describe_tells_state_owners_events_and_specification(serve: Serve) -> None:
    told = (await answer(serve(), "describe", kind="pod", name="web-1"))["text"]
    assert "Status: Running" in told
    assert "Owned by: ReplicaSet/web <- Deployment/web" in told
    assert "restarting web-1" in told
    assert "restarting web-2" not in told
    assert "nodeName: n" in told


async def test_events_are_told_newest_first_and_can_be_of_one_object(serve: Serve) -> None:
    server = serve()
    events = (await answer(server, "events"))["events"]
    assert [event["about"] for event in events] == ["Pod/web-2", "Pod/web-1"]
    of_one = (await answer(server, "events", kind="po", name="web-1"))["events"]
    assert [event["message"] for event in of_one] == ["restarting web-1"]


async def test_logs_are_bounded_in_lines_and_bytes(api: FakeCluster, serve: Serve) -> None:
    server = serve()
    assert (await answer(server, "logs", pod="web-1", container="app", since_seconds=60, previous=True))[
        "text"
    ] == api.log
    assert api.asked[-1].query == {
        "tailLines": "200",
        "limitBytes": "1048576",
        "container": "app",
        "sinceSeconds": "60",
        "previous": "true",
    }
    assert "less than or equal to 2000" in await refusal(server, "logs", pod="web-1", tail_lines=1_000_000)


async def test_end_of_a_long_log_is_kept(api: FakeCluster, serve: Serve) -> None:
    api.log = "x" * 500_000 + "the last words"
    found = await answer(serve(), "logs", pod="web-1")
    assert found["truncated"]
    assert found["text"].endswith("the last words")
    assert len(found["text"]) < text.MAX_TEXT + 100


async def test_answer_that_is_too_large_is_not_taken(api: FakeCluster, serve: Serve) -> None:
    api.log = "x" * (MAX_RESPONSE + 1)
    assert "larger than" in await refusal(serve(), "logs", pod="web-1")


async def test_long_object_is_cut_with_a_mark(api: FakeCluster, serve: Serve) -> None:
    api.objects["/api/v1/namespaces/shop/configmaps"] = [thing("ConfigMap", "big", data={"x": "y" * 500_000})]
    found = await answer(serve(), "get", kind="cm", name="big")
    assert found["truncated"]
    assert "more characters" in found["text"]


async def test_data_of_config_maps_is_told(serve: Serve) -> None:
    assert "color: blue" in (await answer(serve(), "get", kind="cm", name="settings"))["text"]


@pytest.mark.parametrize("tool", ["get", "describe"])
async def test_data_of_secrets_is_never_told(serve: Serve, tool: str) -> None:
    result = await call(serve(), tool, kind="secret", name="login")
    told = text_of(result) + str(result.structured_content)
    assert "password: '(hidden" in text_of(result)
    for hidden in (SECRET, "hunter2", "last-applied"):
        assert hidden not in told


async def test_data_of_listed_secrets_is_removed_below_the_tools(api: FakeCluster) -> None:
    cluster = Cluster(api.settings(context="here"))
    listed = await cluster.list_objects(await cluster.find("secrets"), "shop")
    await cluster.close()
    assert listed["items"]
    assert SECRET not in str(listed)
    assert "hunter2" not in str(listed)


async def test_fields_that_only_machines_read_are_left_out(serve: Serve) -> None:
    assert "managedFields" not in (await answer(serve(), "get", kind="pod", name="web-1"))["text"]


async def test_object_that_is_not_there_is_told_as_the_cluster_says(serve: Serve) -> None:
    assert 'the cluster answers 404: "web-9" not found' in await refusal(serve(), "get", kind="pod", name="web-9")


async def test_token_and_context_of_the_kubeconfig_are_used(api: FakeCluster, serve: Serve) -> None:
    await answer(serve(), "list_resources", kind="pods")
    assert {asked.authorization for asked in api.asked} == {f"Bearer {TOKEN}"}


async def test_token_that_expired_is_read_anew(api: FakeCluster, serve: Serve) -> None:
    server = serve()
    await answer(server, "get", kind="pod", name="web-1")
    api.accepted = "a newer token"
    api.kubeconfig.write_text(api.kubeconfig.read_text().replace(TOKEN, api.accepted))
    await answer(server, "get", kind="pod", name="web-1")
    assert [asked.authorization for asked in api.asked[-2:]] == [f"Bearer {TOKEN}", "Bearer a newer token"]


async def test_token_that_is_refused_is_told(api: FakeCluster, serve: Serve) -> None:
    api.accepted = "another one"
    told = await refusal(serve(), "get", kind="pod", name="web-1")
    assert "the cluster answers 401" in told
    assert TOKEN not in told


async def test_unreachable_cluster_is_told_without_where_it_is(serve: Serve) -> None:
    told = await refusal(serve(context="elsewhere"), "list_resources", kind="pods")
    assert "cannot be reached" in told
    assert "127.0.0.1" not in told


async def test_kubeconfig_that_cannot_be_used_is_told(serve: Serve, tmp_path: Path) -> None:
    for settings in ({"context": "nowhere"}, {"kubeconfig": tmp_path / "none"}, {"kubeconfig": None}):
        assert "not set up right" in await refusal(serve(**settings), "list_resources", kind="pods")


async def test_silent_cluster_is_given_up(serve: Serve) -> None:
    assert "did not answer within" in await refusal(serve(request_timeout="200ms"), "get", kind="pod", name="silent")


async def test_kinds_are_asked_for_once(api: FakeCluster, serve: Serve) -> None:
    server = serve()
    for _ in range(3):
        await answer(server, "list_resources", kind="pods")
    assert [asked.path for asked in api.asked].count("/apis") == 1


async def test_only_readable_namespace_is_meant_when_none_is_given(api: FakeCluster, serve: Serve) -> None:
    await answer(serve("shop"), "list_resources", kind="pods")
    assert api.asked[-1].path.startswith("/api/v1/namespaces/shop/pods?")
    assert "give a namespace" in await refusal(serve("shop", "jobs"), "list_resources", kind="pods")


async def test_cluster_wide_objects_need_all_namespaces(serve: Serve) -> None:
    assert "cannot be read here" in await refusal(serve("shop"), "list_resources", kind="nodes")
    items = (await answer(serve("*"), "list_resources", kind="nodes"))["items"]
    assert [item["status"] for item in items] == ["Ready=True"]


def test_cluster_without_named_namespaces_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="name those that may be read"):
        McpKubernetesSettings.model_validate({"organizations": ["*"]})


async def test_every_tool_says_that_it_only_reads(serve: Serve) -> None:
    async with Client(serve()) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"list_kinds", "list_resources", "get", "describe", "logs", "events"}
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert all(argument.get("description") for argument in tool.input_schema["properties"].values())


async def test_refusals_are_errors_of_one_kind(api: FakeCluster) -> None:
    cluster = Cluster(api.settings(context="here"))
    with pytest.raises(ClusterRefused, match="give the name"):
        await cluster.get(await cluster.find("pods"), "", "shop")
    await cluster.close()
