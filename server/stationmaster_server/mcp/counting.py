"""Not more values in a message than the library can be given: of each that is wrong it makes several errors to read."""

from __future__ import annotations

from typing import Any

import mcp_types as types

from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended

_LISTS = ("tools", "resources", "resourceTemplates", "prompts")
_CONTENTS = ("content", "contents", "messages")
# Anything may be in these, and nothing looks into it.
_FREE = frozenset({"structuredContent", "_meta", "arguments", "data", "experimental"})
_SCHEMAS = frozenset({"inputSchema", "outputSchema"})


def bound(message: types.JSONRPCMessage, bounds: Bounds) -> None:
    """Leave out of a result's lists what would be left out anyway. Raises Ended for a message of too many values."""
    match message:
        case types.JSONRPCResponse(result=body):
            _trim(body, _LISTS, bounds.items + 1)
            _trim(body, _CONTENTS, bounds.contents + 1)
        case types.JSONRPCRequest(params=body) | types.JSONRPCNotification(params=body):
            pass
        case _:
            return
    if not _has_few(body, bounds):
        raise Ended(f"it sent a message of more than {bounds.values:,} values", is_fault=True)


def _trim(body: dict[str, Any], keys: tuple[str, ...], most: int) -> None:
    for key in keys:
        value = body.get(key)
        if isinstance(value, list) and len(value) > most:
            body[key] = value[:most]


def _has_few(body: Any, bounds: Bounds) -> bool:
    left, left_of_schemas = bounds.values, bounds.schema_values
    waiting: list[tuple[Any, bool]] = [(body, False)] if body else []  # requests may have no parameters
    while waiting:
        value, in_schema = waiting.pop()
        if in_schema:
            left_of_schemas -= len(value)
        else:
            left -= len(value)
        if left < 0 or left_of_schemas < 0:
            return False
        if isinstance(value, dict):
            waiting += [
                (inner, in_schema or key in _SCHEMAS)
                for key, inner in value.items()
                if isinstance(inner, dict | list) and (in_schema or key not in _FREE)
            ]
        else:
            waiting += [(inner, in_schema) for inner in value if isinstance(inner, dict | list)]
    return True
