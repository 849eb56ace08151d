"""Templates that want out, or that want all: refused, or stopped within limits, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

import psutil
import pytest
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster_server.templating.templates import TIMEOUT

from tests.contract.world import connect, settle
from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import create, render, revise

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ x['__class__'] }}",
    "{{ x | attr('__class__') }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ '%s' | format(x.__class__) }}",
    "{{ ('__cl' ~ 'ass__') | list | map(attribute='__class__') | list }}",
    "{{ namespace.__init__ }}",
    "{% set ns = namespace(a=1) %}{{ ns.__class__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ joiner('x').__call__.__func__ }}",
    "{{ range.__self__ }}",
    "{{ [].append.__self__ }}",
    "{{ x.format_map }}",
    "{% for c in (1).__class__.__bases__ %}{{ c }}{% endfor %}",
    "{{ [x]|groupby('__class__') }}",
    "{{ dict(a=1).__class__ }}",
    "{{ loop.__class__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{{ caller.__globals__ }}",
]
GREEDY = [
    "{% for a in range(9**9) %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ 'a' * 99999 * 99999 }}",
    "{{ 'ab' | replace('', 'x' * 90000) | replace('', 'y' * 90000) | replace('', 'z' * 90000) }}",
    "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% set ns = namespace(t='a') %}{% for a in range(99999) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t=[1]) %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{{ 'a' | indent(10**9) }}",
    "{{ range(99999) | map('string') | batch(10**9) | list }}",
    "{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
]


@pytest.mark.parametrize("template", ESCAPES)
async def test_a_known_escape_from_the_sandbox_is_refused(prompts: PromptServiceAsyncStub, template: str) -> None:
    async def attempt() -> object:
        made = await create(prompts, "p", template)
        return await render(prompts, "p", {variable.name: "x" for variable in made.variables})

    refusal = await refused(attempt())
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_what_takes_forever_is_stopped_in_time_while_others_are_served(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "quick", "Hello {{ name }}.")
    await render(prompts, "quick", {"name": "Ada"})
    slowest = 0.0
    for place, template in enumerate(GREEDY):
        await create(prompts, f"greedy-{place}", template)
        began = perf_counter()
        greedy = asyncio.create_task(refused(render(prompts, f"greedy-{place}")))
        while not greedy.done():
            at = perf_counter()
            assert (await render(prompts, "quick", {"name": "Ada"})).text == "Hello Ada."
            slowest = max(slowest, perf_counter() - at)
            await asyncio.sleep(0.005)
        refusal = await greedy
        assert refusal.code == "INVALID_ARGUMENT", f"{template}: {refusal}"
        assert perf_counter() - began < 8, template
    assert slowest < TIMEOUT.total_seconds(), "it was held up for as long as a template may take"
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if child.memory_info().rss > 1 << 30]


async def test_one_organization_waits_for_itself_and_not_the_others(
    server: RunningServer, prompts: PromptServiceAsyncStub
) -> None:
    await create(prompts, "bomb", GREEDY[1])
    async with connect(server.target, server.admin_key) as operator:
        key = await settle(operator, "Other")
    async with server.channel(key) as channel:
        others: PromptServiceAsyncStub = PromptServiceStub(channel)
        await create(others, "loop", "{% for n in range(3) %}{{ n }}{% endfor %}")
        bombs = [asyncio.create_task(refused(render(prompts, "bomb"))) for _ in range(10)]
        for _ in range(2):
            assert (await render(others, "loop")).text == "012"
        assert sum(not bomb.done() for bomb in bombs) >= 2
    await asyncio.gather(*bombs)


async def test_a_template_that_takes_long_to_read_does_not_hold_the_server(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "quick", "Hello.")
    slow = [
        create(prompts, "a", "{{ a }}" * 30_000),
        create(prompts, "b", "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}"),
        create(prompts, "c", "{% if a %}" * 20_000),
        create(prompts, "d", "{{ " + " + ".join(["1"] * 60_000) + " }}"),
    ]
    tasks = [asyncio.ensure_future(each) for each in slow]
    slowest = 0.0
    while not all(task.done() for task in tasks):
        at = perf_counter()
        await render(prompts, "quick")
        slowest = max(slowest, perf_counter() - at)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert slowest < TIMEOUT.total_seconds(), "it was held up for as long as a template may take"


async def test_what_only_looks_like_many_lines_is_not_compared_in_the_event_loop(
    prompts: PromptServiceAsyncStub,
) -> None:
    for place, end in enumerate(("\r", "\v", "\f", "\x85", "\u2028")):
        await create(prompts, f"p{place}", f"a{end}" * 1_000)
        await revise(prompts, f"p{place}", f"b{end}a{end}" * 500)
        began = perf_counter()
        difference = await prompts.DiffPromptVersions(pb.DiffPromptVersionsRequest(name=f"prompts/p{place}"))
        assert perf_counter() - began < 2
        assert [line.text.count(end) for line in difference.lines] == [1_000, 1_000]


async def test_values_are_never_read_as_templates(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "{{ text }}")
    hostile = '{{ 7 * 7 }}{% include "p" %}'
    assert (await render(prompts, "p", {"text": hostile})).text == hostile


async def test_too_much_is_refused_before_it_is_stored(prompts: PromptServiceAsyncStub) -> None:
    refusal = await refused(create(prompts, "p", "x" * 262_145))
    assert refusal.code == "INVALID_ARGUMENT"
    refusal = await refused(create(prompts, "p", "".join(f"{{{{ v{n} }}}}" for n in range(101))))
    assert "100" in refusal.message
    await create(prompts, "p", "{{ a }}")
    refusal = await refused(render(prompts, "p", {"a": "x" * 300_000}))
    assert "KiB" in refusal.message
