"""Payloads as templates: every text is filled in where it stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, TypeVarTuple

import pytest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.templates import MOST_TEMPLATES, check, fill
from stationmaster_server.templating.templates import Templates

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def at_once(function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
    """What these tests have filled in needs no limits."""
    return function(*args)


TEMPLATES = Templates(at_once)


async def test_texts_at_any_depth_are_filled_in_where_they_stand() -> None:
    payload = {
        "text": "Hello {{ name }}",
        "list": ["{{ n }}", 7, {"deep": "{% if n %}yes{% endif %}"}],
        "{{ n }}": None,
    }
    filled = await fill(TEMPLATES, payload, {"name": "Ada", "n": 3}, "payload")
    assert filled == {"text": "Hello Ada", "list": ["3", 7, {"deep": "yes"}], "{{ n }}": None}


async def test_the_name_of_a_list_or_an_object_alone_becomes_that() -> None:
    values = {"urls": ["a", "b"], "options": {"x": 1}, "text": "[1]"}
    payload = {"urls": "{{ urls }}", "o": " {{options}} ", "text": "{{ text }}", "in": "all: {{ urls }}"}
    filled = await fill(TEMPLATES, payload, values, "payload")
    assert filled == {"urls": ["a", "b"], "o": {"x": 1}, "text": "[1]", "in": 'all: ["a", "b"]'}


async def test_faults_are_named_by_the_path_of_their_text() -> None:
    with pytest.raises(InvalidArgument) as refused:
        await fill(TEMPLATES, {"a": {"b": ["x", "{{ gone }}"]}, "c": "{{ off }}{{ gone }}"}, {}, "task.payload")
    assert [violation.field for violation in refused.value.violations] == ["task.payload.a.b[1]", "task.payload.c"]
    assert "without a value: gone, off" in refused.value.violations[1].description


async def test_a_payload_may_only_use_variables_that_are_declared() -> None:
    await check(TEMPLATES, {"a": "{{ x }}"}, frozenset({"x", "y"}), "task.payload")
    with pytest.raises(InvalidArgument, match=r"task.payload.a: it uses variables that are not declared: z; those"):
        await check(TEMPLATES, {"a": "{{ x }}{{ z }}"}, frozenset({"x", "y"}), "task.payload")
    with pytest.raises(InvalidArgument, match=r"task.payload.b\[0\]: line 1: unexpected"):
        await check(TEMPLATES, {"b": ["{{ x"]}, frozenset({"x"}), "task.payload")


async def test_all_wrong_templates_are_told_at_once_each_by_its_path() -> None:
    payload = {"a": "{{ z }}", "b": ["{{ x"], "c": {"d": "{{ y }}{{ x }}"}, "e": "{{ x }}"}
    with pytest.raises(InvalidArgument) as refused:
        await check(TEMPLATES, payload, frozenset({"x"}), "task.payload")
    assert [each.field for each in refused.value.violations] == [
        "task.payload.a",
        "task.payload.b[0]",
        "task.payload.c.d",
    ]
    assert all(f"{each.field}: {each.description}" in refused.value.message for each in refused.value.violations)


async def test_there_is_a_limit_to_templates_in_a_payload() -> None:
    await fill(TEMPLATES, {"a": ["x"] * 5000}, {}, "payload")
    with pytest.raises(InvalidArgument, match="payload: it has 1001 templates; at most 1000"):
        await fill(TEMPLATES, {"a": ["{{ x }}"] * (MOST_TEMPLATES + 1)}, {"x": 1}, "payload")


async def test_what_a_payload_becomes_is_bounded() -> None:
    big = {"list": ["-" * 1000] * 10, "text": "-" * 1000}
    for name in big:
        with pytest.raises(InvalidArgument, match=r"payload.*: .*20000"):
            await fill(TEMPLATES, {"a": [f"{{{{ {name} }}}}"] * 1000}, big, "payload", most=20_000)
        filled = await fill(TEMPLATES, {"a": f"{{{{ {name} }}}}"}, big, "payload", most=20_000)
        assert filled == {"a": big[name]}


async def test_a_template_without_variables_that_asks_for_too_much_is_refused_when_it_is_written() -> None:
    payload = {"a": "{{ 'a' * 10**9 }}", "b": "{{ 1 + 1 }}", "c": "{{ x * 10**9 }}"}
    with pytest.raises(InvalidArgument, match=r"^task.payload.a: line 1: it asks for too much") as refused:
        await check(TEMPLATES, payload, frozenset({"x"}), "task.payload")
    assert [violation.field for violation in refused.value.violations] == ["task.payload.a"]
