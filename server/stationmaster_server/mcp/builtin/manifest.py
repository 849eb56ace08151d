"""Kubernetes objects made fit to be shown: Secrets without their data, and nothing that only machines read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SECRET = ("data", "stringData")


def without_secrets(found: dict[str, Any]) -> dict[str, Any]:
    """The object or list; of Secrets only how long each value is. A Secret's copy in its annotations goes as well.

    It goes by what came, not by what was asked for: the items of a list do not say their kind, the list does.
    """
    items = found.get("items")
    secrets = found.get("kind") == "SecretList"
    for item in items if isinstance(items, list) else [found]:
        metadata = item.get("metadata") or {}
        metadata.pop("managedFields", None)
        if not secrets and item.get("kind") != "Secret":
            continue
        (metadata.get("annotations") or {}).pop(_LAST_APPLIED, None)
        for field in _SECRET:
            if item.get(field):
                item[field] = {name: f"(hidden: {len(str(value))} characters)" for name, value in item[field].items()}
    return found


def to_yaml(found: Mapping[str, Any]) -> str:
    """The object as YAML."""
    text: str = yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True, width=120)
    return text


def status_of(found: Mapping[str, Any]) -> str:
    """How an object is, in a few words: its phase, its replicas, or the conditions that do not hold."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    waiting = [
        state["waiting"].get("reason", "")
        for container in status.get("containerStatuses") or []
        if (state := container.get("state") or {}).get("waiting")
    ]
    if waiting:
        return ", ".join(waiting)
    if "phase" in status:
        return str(status["phase"])
    if "replicas" in spec:
        return f"{status.get('readyReplicas', 0)}/{spec['replicas']} ready"
    conditions = status.get("conditions") or []
    return ", ".join(f"{one.get('type')}={one.get('status')}" for one in conditions[:5])


def event_row(event: Mapping[str, Any]) -> tuple[str, str, str, str, int, str]:
    """When, type, reason, about what, how often, and the message."""
    about = event.get("involvedObject") or {}
    when = (
        event.get("lastTimestamp") or event.get("eventTime") or (event.get("metadata") or {}).get("creationTimestamp")
    )
    return (
        str(when or ""),
        str(event.get("type", "")),
        str(event.get("reason", "")),
        f"{about.get('kind', '')}/{about.get('name', '')}",
        int(event.get("count") or 1),
        str(event.get("message", "")),
    )


def newest_first(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, str, int, str]]:
    """The rows of events, the newest first."""
    return sorted(map(event_row, events), reverse=True)


def age_of(found: Mapping[str, Any]) -> str:
    """How old an object is: `5d`, `3h`, `10m`."""
    created = (found.get("metadata") or {}).get("creationTimestamp")
    if not created:
        return ""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(0, seconds)}s"
