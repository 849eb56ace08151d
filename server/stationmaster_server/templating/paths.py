"""The fields of variables that a template asks for and that are not there: `order.number`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import nodes


def missing_paths(tree: nodes.Template, values: Mapping[str, Any], said: str) -> list[str]:
    """Those that can be told without running it, each up to where it ends, in their order.

    `said`: what Jinja2 says is undefined, which has the last part only; others may be asked for where nobody comes by.
    """
    found: dict[str, None] = {}
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        keys = _keys(node)
        missing = _missing(keys, values) if keys and keys[0] in values else ""
        if missing and re.findall(r"\w+", missing)[-1] in said:
            found[missing] = None
    return list(found)


def _keys(node: nodes.Node) -> list[str | int] | None:
    """`order`, `lines`, 0 of `order.lines[0]`; None for what begins with no variable or goes on with one."""
    keys: list[str | int] = []
    while not isinstance(node, nodes.Name):
        match node:
            case nodes.Getattr():
                keys.append(node.attr)
            case nodes.Getitem(arg=nodes.Const(value=str() | int() as key)):
                keys.append(key)
            case _:
                return None
        node = node.node
    return [node.name, *reversed(keys)]


def _missing(keys: list[str | int], values: Mapping[str, Any]) -> str:
    value: Any = values
    path = ""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}"
        match value:
            case Mapping() if key in value:
                value = value[key]
            case list() if isinstance(key, int) and -len(value) <= key < len(value):
                value = value[key]
            case Mapping() if not hasattr(dict, str(key)):
                return path[1:]
            case list() if isinstance(key, int):
                return path[1:]
            case None:
                return path[1:]
            case _:
                return ""  # a method, or a field of something that has none
    return ""
