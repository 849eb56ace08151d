"""The tools that a model is offered, as the model layer takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_ai.tools import ToolDefinition

from stationmaster_server.agents.prices import estimate_tokens, most_tokens
from stationmaster_server.agents.runtimes.bounds import tokens_around
from stationmaster_server.agents.runtimes.toolnames import by_wire_name
from stationmaster_server.agents.tools.source import Offered
from stationmaster_server.agents.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools by name, their names by wire name and back; about, and at most, how many tokens a model is told them in."""

    offered: Offered
    names: Mapping[str, str]
    wire_names: Mapping[str, str]
    definitions: list[ToolDefinition]
    estimated_tokens: int
    most_tokens: int


def make_offer(offered: Offered) -> Offer:
    """What is told of these tools. Made once for many turns: it costs more than a short turn."""
    tools = offered.tools
    names = by_wire_name(tools)
    definitions = [_definition(wire, tools[name]) for wire, name in names.items()]
    told = [json.dumps([wire, tools[name].description, dict(tools[name].parameters)]) for wire, name in names.items()]
    return Offer(
        offered=offered,
        names=names,
        wire_names={name: wire for wire, name in names.items()},
        definitions=definitions,
        estimated_tokens=sum(map(estimate_tokens, told)),
        most_tokens=sum(map(most_tokens, told)) + tokens_around(len(told)),
    )


def _definition(wire: str, tool: Tool) -> ToolDefinition:
    return ToolDefinition(name=wire, parameters_json_schema=dict(tool.parameters), description=tool.description)
