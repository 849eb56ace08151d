"""Specifications keep what they say, through protobuf and through JSON."""

from __future__ import annotations

import json
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from stationmaster.v1 import agent_pb2 as pb
from stationmaster_server.agents.convert import spec_from_proto, spec_to_proto
from stationmaster_server.agents.model import (
    AgentSpec,
    Effect,
    Limits,
    Memory,
    OnPermissionTimeout,
    PermissionSettings,
    RuntimeName,
    ToolPolicy,
    strictest,
)
from stationmaster_server.agents.spec_json import spec_from_json, spec_to_json

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_COUNT = st.none() | st.integers(1, 2**40)
_SMALL = st.none() | st.integers(1, 2**31 - 1)
_SPAN = st.timedeltas(timedelta(microseconds=1), timedelta(days=30))
_LIMITS = st.builds(Limits, _COUNT, _COUNT, _COUNT, _COUNT, _SMALL, _SMALL, st.none() | _SPAN)
_NAMES = st.lists(_TEXT, max_size=3).map(tuple)
_POLICIES = st.lists(st.builds(ToolPolicy, _TEXT, st.sampled_from(Effect)), max_size=3).map(tuple)
_SPECS = st.builds(
    AgentSpec,
    model=_TEXT,
    runtime=st.sampled_from(RuntimeName),
    instructions=_TEXT,
    tools=_NAMES,
    mcp_servers=_NAMES,
    tool_policies=_POLICIES,
    permissions=st.builds(PermissionSettings, _SPAN, st.sampled_from(OnPermissionTimeout)),
    memory=st.builds(Memory, st.integers(1, 1000), st.booleans()),
    limits=_LIMITS,
    max_output_tokens=_SMALL,
    temperature=st.none() | st.floats(0, 2),
)


@given(_SPECS)
def test_a_specification_survives_protobuf(spec: AgentSpec) -> None:
    message = pb.AgentSpec.FromString(spec_to_proto(spec).SerializeToString())
    assert spec_from_proto(message) == spec


@given(_SPECS)
def test_a_specification_survives_json(spec: AgentSpec) -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


@given(_TEXT.filter(bool))
def test_the_name_of_a_prompt_survives(prompt: str) -> None:
    spec = AgentSpec("demo", prompt=prompt)
    assert spec_from_proto(spec_to_proto(spec)) == spec == spec_from_json(spec_to_json(spec))


def test_what_is_absent_has_its_default() -> None:
    spec = spec_from_proto(pb.AgentSpec(model="demo"))
    assert spec == AgentSpec("demo")
    assert (spec.memory.window_pairs, spec.permissions.deadline) == (50, timedelta(hours=1))


def test_json_of_a_later_version_is_read() -> None:
    assert spec_from_json({"model": "demo", "colour": "blue"}) == AgentSpec("demo")


def test_the_strictest_rule_wins() -> None:
    policies = (ToolPolicy("files.*", Effect.ALLOW), ToolPolicy("*.write", Effect.ASK), ToolPolicy("x", Effect.DENY))
    assert strictest(policies, "files.write", Effect.DENY) is Effect.ASK
    assert strictest(policies, "files.read", Effect.ASK) is Effect.ALLOW
    assert strictest(policies, "time.now", Effect.ASK) is Effect.ASK
