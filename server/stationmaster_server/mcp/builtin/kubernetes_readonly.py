"""The MCP server `kubernetes_readonly`: objects, logs and events of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from stationmaster_server.mcp.builtin import text
from stationmaster_server.mcp.builtin.cluster import Cluster, Kind
from stationmaster_server.mcp.builtin.kubernetes_gate import ClusterRefused
from stationmaster_server.mcp.builtin.kubernetes_results import Event, Events, Item, Items, KindInfo, Kinds, Text
from stationmaster_server.mcp.builtin.manifest import age_of, newest_first, status_of, to_yaml

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_MAX_LOG_BYTES = 1024 * 1024
_MAX_EVENTS = 50
_MAX_OWNERS = 5

KindName = Annotated[str, Field(description="The kind: pods, Deployment, po, jobs.batch", min_length=1, max_length=200)]
Name = Annotated[str, Field(description="The name of the object", min_length=1, max_length=253)]
Namespace = Annotated[
    str, Field(description="The namespace; may be empty when only one can be read, or for kinds without", max_length=63)
]


def make_server(cluster: Cluster) -> MCPServer:
    """The server, as one tenant sees it."""
    server = MCPServer(
        "kubernetes_readonly",
        title="Kubernetes (read only)",
        instructions="Reads a Kubernetes cluster. Begin with list_resources. Nothing can be changed or run in it.",
    )
    _add_lists(server, cluster)
    _add_objects(server, cluster)
    _add_happenings(server, cluster)
    return server


def _add_lists(server: MCPServer, cluster: Cluster) -> None:
    @server.tool(annotations=_READS)
    async def list_kinds() -> Annotated[CallToolResult, Kinds]:
        """List the kinds of objects that the cluster has, custom ones too."""
        with _told():
            kinds = await cluster.kinds()
        found = Kinds(
            kinds=[KindInfo(name=kind.full_name, kind=kind.kind, namespaced=kind.namespaced) for kind in kinds]
        )
        rows = [(kind.name, kind.kind, "yes" if kind.namespaced else "no") for kind in found.kinds]
        return _result(found, text.table(("name", "kind", "namespaced"), rows))

    @server.tool(annotations=_READS)
    async def list_resources(
        kind: KindName,
        namespace: Namespace = "",
        label_selector: Annotated[str, Field(description="Labels: app=web,tier!=cache", max_length=1000)] = "",
        field_selector: Annotated[str, Field(description="Fields: status.phase=Failed", max_length=1000)] = "",
        limit: Annotated[int, Field(description="How many at most", ge=1, le=1000)] = 100,
        continue_token: Annotated[str, Field(description="Where to go on: from the last answer", max_length=4000)] = "",
    ) -> Annotated[CallToolResult, Items]:
        """List objects of one kind with their age and status."""
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "continue": continue_token}
        with _told():
            of = await cluster.find(kind)
            wanted = {name: value for name, value in query.items() if value}
            listed = await cluster.list_objects(
                of, _inside(cluster, of, namespace), limit=str(min(limit, cluster.max_items)), **wanted
            )
        items = [_item(one) for one in listed.get("items", [])[: cluster.max_items]]
        token = str((listed.get("metadata") or {}).get("continue", ""))
        rows = [(one.namespace, one.name, one.age, one.status) for one in items]
        shown = text.table(("namespace", "name", "age", "status"), rows) + ("\n(there are more)" if token else "")
        return _result(Items(kind=of.kind, items=items, continue_token=token), shown)


def _add_objects(server: MCPServer, cluster: Cluster) -> None:
    @server.tool(annotations=_READS)
    async def get(kind: KindName, name: Name, namespace: Namespace = "") -> Annotated[CallToolResult, Text]:
        """Return one object as YAML. The values of a Secret are hidden."""
        with _told():
            of = await cluster.find(kind)
            found = await cluster.get(of, name, _inside(cluster, of, namespace))
        return _text(to_yaml(found))

    @server.tool(annotations=_READS)
    async def describe(kind: KindName, name: Name, namespace: Namespace = "") -> Annotated[CallToolResult, Text]:
        """Describe one object: its state, what owns it, what happened to it, and its specification."""
        with _told():
            of = await cluster.find(kind)
            inside = _inside(cluster, of, namespace)
            found = await cluster.get(of, name, inside)
            owners = await _owners(cluster, found, inside)
            events = await _events(cluster, inside, of.kind, name) if inside else []
        return _text(_description(of, found, owners, events))


def _add_happenings(server: MCPServer, cluster: Cluster) -> None:
    @server.tool(annotations=_READS)
    async def logs(
        pod: Annotated[str, Field(description="The name of the pod", min_length=1, max_length=253)],
        namespace: Namespace = "",
        container: Annotated[str, Field(description="The container; empty when there is one", max_length=63)] = "",
        tail_lines: Annotated[int, Field(description="How many of the last lines", ge=1, le=2000)] = 200,
        since_seconds: Annotated[int, Field(description="Only what is newer; 0: all", ge=0, le=30 * 86400)] = 0,
        previous: Annotated[bool, Field(description="Of the container before it was restarted")] = False,
    ) -> Annotated[CallToolResult, Text]:
        """Return the last lines that a container of a pod wrote."""
        query = {"tailLines": str(tail_lines), "limitBytes": str(_MAX_LOG_BYTES)}
        if container:
            query["container"] = container
        if since_seconds:
            query["sinceSeconds"] = str(since_seconds)
        if previous:
            query["previous"] = "true"
        with _told():
            inside = cluster.namespace(namespace)
            if not inside:
                raise ClusterRefused(f"give the namespace of the pod {pod!r}")
            written = await cluster.logs(pod, inside, **query)
        return _text(written, end=True)

    @server.tool(annotations=_READS)
    async def events(
        namespace: Namespace = "",
        kind: Annotated[str, Field(description="About objects of this kind (Pod); empty: all", max_length=200)] = "",
        name: Annotated[str, Field(description="About the object of this name; empty: all", max_length=253)] = "",
    ) -> Annotated[CallToolResult, Events]:
        """List what happened lately, the newest first: warnings, restarts, failed pulls."""
        with _told():
            about = (await cluster.find(kind)).kind if kind else ""
            rows = await _events(cluster, cluster.namespace(namespace), about, name)
        columns = ("when", "type", "reason", "about", "count", "message")
        found = Events(events=[Event.model_validate(dict(zip(columns, row, strict=True))) for row in rows])
        return _result(found, text.table(columns, rows))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ClusterRefused as refusal:
        raise ToolError(str(refusal)) from refusal


def _result(found: BaseModel, shown: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=shown)], structured_content=found.model_dump())


def _text(whole: str, *, end: bool = False) -> CallToolResult:
    """A text result; `end`: of one that is too long its end is what counts."""
    kept = whole
    if len(whole) > text.MAX_TEXT:
        kept = f"… (cut)\n{whole[-text.MAX_TEXT :]}" if end else text.cut(whole)
    return _result(Text(text=kept, truncated=kept is not whole), kept)


def _inside(cluster: Cluster, kind: Kind, namespace: str) -> str:
    return cluster.namespace(namespace) if kind.namespaced else ""


def _item(found: dict[str, Any]) -> Item:
    metadata = found.get("metadata") or {}
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    return Item(namespace=namespace, name=name, age=age_of(found), status=status_of(found))


async def _events(cluster: Cluster, namespace: str, kind: str, name: str) -> list[tuple[str, str, str, str, int, str]]:
    about = {"involvedObject.kind": kind, "involvedObject.name": name}
    selector = ",".join(f"{field}={value}" for field, value in about.items() if value)
    query = {"fieldSelector": selector} if selector else {}
    listed = await cluster.list_objects(await cluster.find("events"), namespace, limit=str(cluster.max_items), **query)
    return newest_first(listed.get("items", []))[:_MAX_EVENTS]


async def _owners(cluster: Cluster, found: dict[str, Any], namespace: str) -> list[str]:
    """What owns the object, and what owns that, as far as it can be read."""
    chain: list[str] = []
    while len(chain) < _MAX_OWNERS:
        references = (found.get("metadata") or {}).get("ownerReferences") or []
        owner = next((one for one in references if one.get("controller")), references[0] if references else None)
        if owner is None:
            break
        chain.append(f"{owner['kind']}/{owner['name']}")
        group = owner["apiVersion"].partition("/")[0] if "/" in owner["apiVersion"] else ""
        try:
            kind = await cluster.find(f"{owner['kind']}.{group}" if group else owner["kind"])
            found = await cluster.get(kind, owner["name"], namespace)
        except ClusterRefused:  # named by its child, and no more to be seen of it
            break
    return chain


def _description(kind: Kind, found: dict[str, Any], owners: list[str], events: list[tuple[Any, ...]]) -> str:
    metadata = found.get("metadata") or {}
    lines = [
        f"{kind.kind}: {metadata.get('name', '')}",
        f"Namespace: {metadata.get('namespace', '-')}",
        f"Age: {age_of(found) or '-'}",
        f"Status: {status_of(found) or '-'}",
        f"Owned by: {' <- '.join(owners) or '-'}",
        f"Labels: {', '.join(f'{key}={value}' for key, value in (metadata.get('labels') or {}).items()) or '-'}",
    ]
    happened = text.table(("when", "type", "reason", "about", "count", "message"), events) if events else "none"
    rest = {key: value for key, value in found.items() if key not in ("apiVersion", "kind", "metadata")}
    return "\n".join([*lines, "", "Events:", happened, "", to_yaml(rest)])
