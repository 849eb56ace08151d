"""Templates as the rooms use them: simple ones at once, others in a process that a time limit ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TypeVar, TypeVarTuple

import pytest
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.templating.templates import Templates

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Counted:
    """A pool that tells how often it was asked."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.calls = 0
        self.texts: list[str] = []

    async def cpu(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        self.calls += 1
        given: object = next(iter(args), None)
        self.texts = list(given.values()) if isinstance(given, dict) else []
        return await self._pools.cpu(function, *args, timeout=timeout)


@pytest.fixture
async def pool() -> AsyncIterator[Counted]:
    pools = Pools(PoolSettings(processes=1, memory=512 * 1024**2))
    yield Counted(pools)
    await pools.close(timedelta(0))


@pytest.fixture
def templates(pool: Counted) -> Templates:
    return Templates(pool.cpu, timeout=timedelta(seconds=2))


async def test_simple_templates_need_no_process(templates: Templates, pool: Counted) -> None:
    texts = {"a": "Dear {{ name }},", "b": "{{ x | default('none') | upper }}{% if name == 'Ada' %}!{% endif %}"}
    assert await templates.fill(texts, {"name": "Ada"}) == {"a": "Dear Ada,", "b": "NONE!"}
    assert (await templates.outlines(texts))["b"].names == {"x", "name"}
    assert pool.calls == 0


async def test_loops_long_texts_and_large_values_are_filled_in_elsewhere(templates: Templates, pool: Counted) -> None:
    texts = {
        "loop": "{% for x in xs %}{{ x }},{% endfor %}",
        "long": "{{ xs | first }}" + "-" * 20_000,
        "plain": "{{ xs | last }}",
    }
    filled = await templates.fill(texts, {"xs": [1, 2]})
    assert filled == {"loop": "1,2,", "long": "1" + "-" * 20_000, "plain": "2"}
    assert pool.calls == 1
    assert (await templates.fill({"a": "{{ x }}" * 10}, {"x": "-" * 99_999}))["a"] == "-" * 999_990
    assert (await templates.fill({"a": "{{ x }}" * 10}, {"x": "-", "y": "-" * 200_000}))["a"] == "-" * 10
    assert pool.calls == 3
    assert (await templates.outlines(texts))["long"].names == {"xs"}
    assert pool.calls == 4


async def test_of_many_templates_only_few_are_compiled_at_once(templates: Templates, pool: Counted) -> None:
    texts = {f"payload.t[{place}]": f"{{{{ a }}}} {place}" for place in range(400)}
    assert len(await templates.outlines(texts)) == 400
    assert len(pool.texts) > 370
    assert await templates.fill(texts, {"a": 1}) == {path: f"1 {path[10:-1]}" for path in texts}
    assert len(pool.texts) > 340, "those that are kept, and as many as before"


@pytest.mark.parametrize(
    "text", ["{{ a" + "|upper" * 60 + " }}", "{{ " + "not " * 60 + "a }}", "{{ a" + ".b" * 60 + "}}"]
)
async def test_what_is_nested_deeply_is_compiled_elsewhere(templates: Templates, pool: Counted, text: str) -> None:
    assert (await templates.outlines({"a": text}))["a"].names == {"a"}
    assert pool.texts == [text]


async def test_what_stands_there_often_is_filled_in_once(templates: Templates, pool: Counted) -> None:
    filled = await templates.fill({f"{place}": "<{{ a }}>" for place in range(1000)}, {"a": "-" * 100})
    assert (len(filled), set(filled.values()), pool.calls) == (1000, {f"<{'-' * 100}>"}, 0)


@pytest.mark.parametrize("text", ["{{ a }}", "{% for _ in [1] %}{{ a }}{% endfor %}"])
async def test_filled_in_texts_have_a_bound_together(templates: Templates, text: str) -> None:
    texts = {f"payload.t[{place}]": text for place in range(1000)}
    with pytest.raises(InvalidArgument, match=r"payload.t\[5\]: with it the texts become longer than 1000 characters"):
        await templates.fill(texts, {"a": "-" * 200}, most=1000)
    both = {"one": "{{ a }}", "other": "{% for _ in [1] %}{{ a }}{% endfor %}"}
    assert len(await templates.fill(both, {"a": "-" * 500}, most=1000)) == 2
    with pytest.raises(InvalidArgument, match=r"other: with it the texts become longer than 1000 characters"):
        await templates.fill(both, {"a": "-" * 501}, most=1000)


async def test_all_that_is_wrong_is_named_by_path_and_line(templates: Templates) -> None:
    texts = {"payload.a": "{{ x }}", "payload.b": "\n{% for y in ys %}{{ y.z }}{% endfor %}", "payload.c": "{{ v }}"}
    with pytest.raises(InvalidArgument) as refused:
        await templates.fill(texts, {"ys": [{}], "v": 1})
    assert {violation.field: violation.description for violation in refused.value.violations} == {
        "payload.a": "variables without a value: x; give them, or a default: {{ name|default('') }}",
        "payload.b": "line 2: 'dict object' has no attribute 'z'",
    }
    said = r"payload.a: line 1: there is no filter named 'nope'; payload.b: line 1: "
    with pytest.raises(InvalidArgument, match=said):
        await templates.outlines({"payload.a": "{{ x | nope }}", "payload.b": "{{"})


HOSTILE = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "strings": "{% for a in range(99999) %}{% for b in range(99) %}{% if 'a' * 99999 in 'b' * 99999 %}{% endif %}"
    "{% endfor %}{% endfor %}",
    "sorting": "{% for a in range(99999) %}{% set x = range(99999) | sort | list %}{% endfor %}",
    "macros": "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
    "joining": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "blocks": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = y %}{% endfor %}",
    "replacing": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "replacing by filter": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "output": "{% for a in range(99999) %}{{ '-' * 1000 }}{% endfor %}",
    "numbers": "{% set n = namespace(x=9) %}{% for i in range(99999) %}{% set n.x = n.x * 9 %}{% endfor %}",
    "summing": "{{ range(99999) | batch(1) | sum(start=[]) | length }}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_templates_end_in_time_and_hurt_nobody(templates: Templates, text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"takes longer than 2 s|too much|too often"):
        await templates.fill({"payload.text": text}, {})
    assert await templates.fill({"a": "{% for x in [1] %}{{ x }}{% endfor %}"}, {}) == {"a": "1"}


async def test_what_hostile_texts_cost_to_read_is_bounded_too(templates: Templates) -> None:
    for text in ("{{ a }}" * 35_000, "{{ " + "(" * 100_000, "{% if a %}" * 20_000, "{{ a" + "|upper" * 30_000 + " }}"):
        with contextlib.suppress(InvalidArgument):
            await templates.outlines({"payload.text": text})
    assert await templates.fill({"a": "{% for x in [1] %}{{ x }}{% endfor %}"}, {}) == {"a": "1"}


async def test_a_template_sees_nothing_of_the_server(templates: Templates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATIONMASTER_SECRET", "secret")
    assert os.environ["STATIONMASTER_SECRET"] == "secret"
    for text in ("{{ environ }}", "{% for x in [1] %}{{ cycler.__init__.__globals__.os.environ }}{% endfor %}"):
        with pytest.raises(InvalidArgument) as refused:
            await templates.fill({"a": text}, {})
        assert "secret" not in str(refused.value)
