"""Prompts that include prompts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import prompt_pb2 as pb

from tests.promises.refusal import refused
from tests.prompts.making import create, label, render, revise
from tests.rpc.served import reason_of

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


async def test_an_include_is_the_other_prompts_text_with_its_variables(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "tone", "Be {{ tone }}.", "production")
    made = await create(prompts, "p", 'Hello {{ name }}. {% include "tone" %}')
    assert list(made.includes) == ["tone"]
    assert (await render(prompts, "p", {"name": "Ada", "tone": "kind"})).text == "Hello Ada. Be kind."
    assert set((await refused(render(prompts, "p"))).fields) == {"variables.name", "variables.tone"}


async def test_an_include_names_a_label_or_a_version(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "part", "1", "production")
    await revise(prompts, "part", "2", "staging")
    await revise(prompts, "part", "3")
    text = '{% include "part" %}{% include "part@staging" %}{% include "part@3" %}{% include "prompts/part@latest" %}'
    await create(prompts, "p", text)
    assert (await render(prompts, "p")).text == "1233"


async def test_a_moved_label_of_an_included_prompt_is_seen_by_the_next_render(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "part", "one", "production")
    await revise(prompts, "part", "two")
    await create(prompts, "middle", '<{% include "part" %}>')
    await create(prompts, "p", '{% include "middle" %}')
    for version in (1, 2, 1, 2):
        await label(prompts, "part", "production", version)
        assert (await render(prompts, "p")).text == f"<{('one', 'two')[version - 1]}>"
    await revise(prompts, "middle", '[{% include "part" %}]')
    assert (await render(prompts, "p")).text == "[two]"


async def test_a_circle_is_refused_with_its_path(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "a", "end")
    await create(prompts, "b", '{% include "a" %}')
    await create(prompts, "c", '{% include "b" %}')
    refusal = await refused(revise(prompts, "a", '{% include "c" %}'))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PROMPT_CYCLE")
    assert "a@2 -> c@1 -> b@1 -> a@2" in refusal.message
    itself = await refused(revise(prompts, "a", '{% include "a@latest" %}'))
    assert itself.reason == "PROMPT_CYCLE"


async def test_a_label_that_would_close_a_circle_does_not_move(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "a", "end", "production")
    await create(prompts, "b", '{% include "a" %}')
    await revise(prompts, "a", '{% include "b" %}')  # b includes a's first version
    assert (await render(prompts, "a", version=2)).text == "end"
    refusal = await refused(label(prompts, "a", "production", 2))
    assert refusal.reason == "PROMPT_CYCLE"
    assert (await render(prompts, "a")).text == "end"


async def test_includes_are_bounded_in_depth(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p0", "x")
    for number in range(1, 10):
        await create(prompts, f"p{number}", f'{{% include "p{number - 1}" %}}')
    assert (await render(prompts, "p9")).text == "x"
    refusal = await refused(create(prompts, "p10", '{% include "p9" %}'))
    assert refusal.reason == "PROMPT_CYCLE"
    assert "deep" in refusal.message


async def test_includes_are_bounded_in_length(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p0", "x" * 100_000)
    await create(prompts, "p1", '{% include "p0" %}' * 2)
    refusal = await refused(create(prompts, "p2", '{% include "p1" %}' * 2))
    assert (refusal.code, "longer than" in refusal.message) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("name", ["nobody", "part@nowhere", "part@7", "../etc/passwd", "/etc/passwd", ""])
async def test_what_is_not_there_cannot_be_included(prompts: PromptServiceAsyncStub, name: str) -> None:
    await create(prompts, "part", "x")
    refusal = await refused(create(prompts, "p", f'{{% include "{name}" %}}'))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PROMPT_MISSING")


async def test_a_prompt_that_others_include_is_deleted_by_force_only(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "part", "x")
    await create(prompts, "p", '{% include "part" %}')
    refusal = await refused(prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/part")))
    assert (refusal.reason, "prompts/p" in refusal.message) == ("PROMPT_IN_USE", True)
    assert (await render(prompts, "p")).text == "x"
    await prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/part", force=True))
    assert (await refused(render(prompts, "p"))).reason == "PROMPT_MISSING"


async def test_an_include_that_is_only_spoken_of_is_none(prompts: PromptServiceAsyncStub) -> None:
    text = '{% raw %}{% include "nobody" %}{% endraw %}{# {% include "nobody" %} #}'
    made = await create(prompts, "p", text)
    assert not made.includes
    assert (await render(prompts, "p")).text == '{% include "nobody" %}'


async def test_changes_at_once_close_no_circle(prompts: PromptServiceAsyncStub) -> None:
    """Each sees the other's prompt as it was before: the one that commits later looks again."""
    for number in range(10):
        ids = [f"{name}{number}" for name in "abc"]
        for one in ids:
            await create(prompts, one, "alone", "production")
        around = [
            revise(prompts, one, f'{{% include "{other}" %}}', "production")
            for one, other in zip(ids, [*ids[1:], ids[0]], strict=True)
        ]
        answers = await asyncio.gather(*around, return_exceptions=True)
        refusals = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert {reason_of(one) for one in refusals} == {"PROMPT_CYCLE"}
        for one in ids:
            assert (await render(prompts, one)).text == "alone"


async def test_nothing_is_included_that_is_deleted_at_the_same_time(prompts: PromptServiceAsyncStub) -> None:
    for number in range(10):
        whole, part = f"whole{number}", f"part{number}"
        await create(prompts, part, "part", "production")
        await create(prompts, whole, "alone", "production")
        await asyncio.gather(
            revise(prompts, whole, f'{{% include "{part}" %}}', "production"),
            prompts.DeletePrompt(pb.DeletePromptRequest(name=f"prompts/{part}")),
            return_exceptions=True,
        )
        assert (await render(prompts, whole)).text in ("alone", "part")


async def test_a_default_that_would_close_a_circle_is_refused(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "inner", "plain", "production")
    await create(prompts, "outer", '{% include "inner" %}', "production")
    await revise(prompts, "inner", '{% include "outer" %}', "staging")  # outer includes inner's first version
    other = pb.Prompt(name="prompts/inner", default_label="staging")
    change = pb.UpdatePromptRequest(prompt=other, update_mask=FieldMask(paths=["default_label"]))
    assert (await refused(prompts.UpdatePrompt(change))).reason == "PROMPT_CYCLE"
    taken_away = label(prompts, "inner", "production", 0)  # then the newest version stands for it
    assert (await refused(taken_away)).reason == "PROMPT_CYCLE"
    assert (await render(prompts, "outer")).text == "plain"
