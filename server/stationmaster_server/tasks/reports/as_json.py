"""A report as JSON: the model, with times in ISO 8601 and lengths of time in seconds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stationmaster_server.tasks.reports.bounds import bounded
from stationmaster_server.tasks.reports.model import Report

SCHEMA = "stationmaster.report/1"


def as_json(report: Report) -> bytes:
    """The report as a JSON object in UTF-8; `schema` says which fields to expect."""
    data = {"schema": SCHEMA, **_plain(bounded(report))}
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case float():
            return min(1.0, max(0.0, value))  # a fraction
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
        case frozenset():
            return sorted(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
