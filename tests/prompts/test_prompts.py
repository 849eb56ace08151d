"""Prompts, their versions and labels, through the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Value
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1 import task_pb2
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub

from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import create, label, member_key, render, revise

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


async def test_a_prompt_is_made_read_and_filled_in(prompts: PromptServiceAsyncStub) -> None:
    variables = [
        task_pb2.VariableDeclaration(name="name", required=True),
        task_pb2.VariableDeclaration(
            name="count", type=task_pb2.VARIABLE_TYPE_INTEGER, default_value=Value(number_value=2)
        ),
    ]
    made = await create(
        prompts, "greeting", "Hello {{ name }}, {{ count }} times.", "production", variables=variables, message="first"
    )
    assert (made.name, made.version, made.latest_version, dict(made.labels)) == (
        "prompts/greeting",
        1,
        1,
        {"production": 1},
    )
    assert made.message == "first"
    assert made.author.startswith("users/")
    got = await prompts.GetPrompt(pb.GetPromptRequest(name="prompts/greeting"))
    assert got == made
    rendered = await render(prompts, "greeting", {"name": "Ada"})
    assert rendered.text == "Hello Ada, 2 times."
    assert rendered.selection.prompt_version == "prompts/greeting/versions/1"
    assert rendered.selection.label == "production"
    assert rendered.selection.reason == pb.SELECTION_REASON_DEFAULT


async def test_versions_never_change_and_are_listed_with_author_message_and_labels(
    prompts: PromptServiceAsyncStub,
) -> None:
    await create(prompts, "p", "one", "production")
    await revise(prompts, "p", "two", message="better")
    changed = await revise(prompts, "p", "three", "staging")
    assert changed.latest_version == 3
    assert dict(changed.labels) == {"production": 1, "staging": 3}
    answer = await prompts.ListPromptVersions(pb.ListPromptVersionsRequest(parent="prompts/p"))
    assert [(v.version, v.template, v.message, list(v.labels)) for v in answer.versions] == [
        (3, "three", "", ["staging"]),
        (2, "two", "better", []),
        (1, "one", "", ["production"]),
    ]
    for version, text in ((1, "one"), (2, "two"), (3, "three")):
        assert (await render(prompts, "p", version=version)).text == text
        assert (await prompts.GetPrompt(pb.GetPromptRequest(name="prompts/p", version=version))).template == text
    assert (await prompts.GetPrompt(pb.GetPromptRequest(name="prompts/p", label="production"))).version == 1


async def test_what_changes_no_text_makes_no_version(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "one")
    prompt = pb.Prompt(name="prompts/p", display_name="A prompt", template="one", tags=["b", "a"])
    changed = await prompts.UpdatePrompt(pb.UpdatePromptRequest(prompt=prompt))
    assert (changed.latest_version, changed.display_name, list(changed.tags)) == (1, "A prompt", ["b", "a"])


async def test_a_stale_etag_is_refused(prompts: PromptServiceAsyncStub) -> None:
    made = await create(prompts, "p", "one")
    await revise(prompts, "p", "two")
    prompt = pb.Prompt(name="prompts/p", template="three", etag=made.etag)
    refusal = await refused(prompts.UpdatePrompt(pb.UpdatePromptRequest(prompt=prompt)))
    assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH")
    request = pb.SetPromptLabelRequest(name="prompts/p", label="x", version=1, etag=made.etag)
    assert (await refused(prompts.SetPromptLabel(request))).reason == "ETAG_MISMATCH"


async def test_a_repeated_request_makes_one_version(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "one")
    request = pb.UpdatePromptRequest(prompt=pb.Prompt(name="prompts/p", template="two"), request_id=str(uuid4()))
    first, second = await prompts.UpdatePrompt(request), await prompts.UpdatePrompt(request)
    assert first == second
    assert second.latest_version == 2


async def test_a_trial_changes_nothing(prompts: PromptServiceAsyncStub) -> None:
    request = pb.CreatePromptRequest(prompt_id="p", prompt=pb.Prompt(template="{{ a }}"), validate_only=True)
    tried = await prompts.CreatePrompt(request)
    assert [variable.name for variable in tried.variables] == ["a"]
    assert (await refused(prompts.GetPrompt(pb.GetPromptRequest(name="prompts/p")))).code == "NOT_FOUND"
    await create(prompts, "p", "one")
    update = pb.UpdatePromptRequest(prompt=pb.Prompt(name="prompts/p", template="two"), validate_only=True)
    assert (await prompts.UpdatePrompt(update)).latest_version == 2
    assert (await prompts.GetPrompt(pb.GetPromptRequest(name="prompts/p"))).latest_version == 1


async def test_a_label_that_moved_or_went_away_is_seen_by_the_next_render(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "one", "production")
    await revise(prompts, "p", "two")
    for version in (1, 2, 1, 2, 1):
        await label(prompts, "p", "production", version)
        assert (await render(prompts, "p")).text == ("one", "two")[version - 1]
        assert (await render(prompts, "p", label="production")).selection.prompt_version.endswith(f"/{version}")
    await label(prompts, "p", "production", 0)
    refusal = await refused(render(prompts, "p", label="production"))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert (await render(prompts, "p")).text == "two"
    assert (await render(prompts, "p", label="latest")).text == "two"


async def test_a_protected_label_is_moved_by_administrators_only(
    server: RunningServer, prompts: PromptServiceAsyncStub
) -> None:
    await create(prompts, "p", "one", "production", protected_labels=["production"])
    async with server.channel(await member_key(server)) as channel:
        member: PromptServiceAsyncStub = PromptServiceStub(channel)
        await revise(member, "p", "two", "staging")
        for attempt in (
            label(member, "p", "production", 2),
            label(member, "p", "production", 0),
            revise(member, "p", "three", "production"),
            create(member, "q", "one", protected_labels=["production"]),
            member.DeletePrompt(pb.DeletePromptRequest(name="prompts/p", force=True)),
            member.UpdatePrompt(
                pb.UpdatePromptRequest(
                    prompt=pb.Prompt(name="prompts/p"), update_mask=FieldMask(paths=["protected_labels"])
                )
            ),
            revise(member, "p", "three", rules=[pb.PromptRule(condition="true", version=2)]),
            revise(member, "p", "three", default_label="staging"),
        ):
            assert (await refused(attempt)).reason == "ROLE_INSUFFICIENT"
        assert (await render(member, "p")).text == "one"
    await label(prompts, "p", "production", 2)
    assert (await render(prompts, "p")).text == "two"


async def test_a_label_is_not_moved_to_what_cannot_be_filled_in(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "part", "x")
    await create(prompts, "p", '{% include "part" %}')
    await revise(prompts, "p", "two", "production")
    assert (await refused(label(prompts, "p", "latest", 1))).fields == ["label"]
    await prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/part", force=True))
    assert (await refused(label(prompts, "p", "production", 1))).reason == "PROMPT_MISSING"
    assert (await refused(label(prompts, "p", "missing", 0))).code == "NOT_FOUND"
    assert (await render(prompts, "p")).text == "two"


async def test_everything_that_is_missing_or_wrong_is_told_at_once(prompts: PromptServiceAsyncStub) -> None:
    variables = [
        task_pb2.VariableDeclaration(name="count", type=task_pb2.VARIABLE_TYPE_INTEGER, required=True),
        task_pb2.VariableDeclaration(name="name", required=True),
    ]
    await create(prompts, "p", "{{ name }} {{ count }} {{ other }}", variables=variables)
    refusal = await refused(render(prompts, "p", {"count": "many", "unknown": 1}))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert set(refusal.fields) == {
        "variables.count",
        "variables.name",
        "variables.other",
        "variables.unknown",
    }


async def test_variables_that_are_not_declared_are_found(prompts: PromptServiceAsyncStub) -> None:
    made = await create(prompts, "p", "{{ a }} {{ b | default('x') }} {% for i in c %}{{ i }}{% endfor %}")
    found = {variable.name: (variable.type, variable.required) for variable in made.variables}
    kind = task_pb2.VARIABLE_TYPE_ANY
    assert found == {"a": (kind, True), "b": (kind, False), "c": (kind, True)}
    assert (await render(prompts, "p", {"a": 5, "c": [1, 2]})).text == "5 x 12"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ a", "line 1"),
        ("{% for %}", "line 1"),
        ("a\n{% if %}", "line 2"),
        ("{{ a | nofilter }}", "no filter"),
        ("{% import 'x' as y %}", "not available"),
        ("{% include name %}", "in quotes"),
        ("a\0b", "NUL"),
    ],
)
async def test_a_template_that_cannot_be_is_refused_with_its_line(
    prompts: PromptServiceAsyncStub, template: str, told: str
) -> None:
    refusal = await refused(create(prompts, "p", template))
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["prompt.template"])
    assert told in refusal.message


async def test_the_difference_of_two_versions(prompts: PromptServiceAsyncStub) -> None:
    before = "\n".join(f"line {number}" for number in range(20))
    await create(prompts, "p", before)
    await revise(prompts, "p", before.replace("line 9", "line nine {{ a }}"))
    diff = await prompts.DiffPromptVersions(pb.DiffPromptVersionsRequest(name="prompts/p"))
    assert (diff.from_version, diff.to_version) == (1, 2)
    shown = [(line.kind, line.text) for line in diff.lines]
    assert shown[0] == (pb.DIFF_LINE_KIND_SKIPPED, "")
    assert (pb.DIFF_LINE_KIND_REMOVED, "line 9") in shown
    assert (pb.DIFF_LINE_KIND_ADDED, "line nine {{ a }}") in shown
    assert len(shown) == 10
    (change,) = diff.variables
    assert (change.variable, change.HasField("before"), change.after.required) == ("a", False, True)
    request = pb.DiffPromptVersionsRequest(name="prompts/p", from_version=1, to_version=9)
    assert (await refused(prompts.DiffPromptVersions(request))).code == "NOT_FOUND"


async def test_prompts_are_listed_by_tag_and_label(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "a", "x", "production", tags=["code", "lang:en"])
    await create(prompts, "b", "x", "staging", tags=["prose", "lang:en"])

    async def ids(condition: str) -> list[str]:
        answer = await prompts.ListPrompts(pb.ListPromptsRequest(filter=condition, order_by="prompt_id"))
        return [prompt.name for prompt in answer.prompts]

    assert await ids("") == ["prompts/a", "prompts/b"]
    assert await ids("labels:production") == ["prompts/a"]
    assert await ids("tags:prose") == ["prompts/b"]
    assert await ids('tags:"lang:en"') == ["prompts/a", "prompts/b"]
    assert await ids('labels.production = "1"') == ["prompts/a"]


async def test_a_deleted_prompt_is_gone_and_its_id_can_be_used_again(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "old", "production")
    assert (await render(prompts, "p")).text == "old"
    await prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/p"))
    assert (await refused(render(prompts, "p"))).code == "NOT_FOUND"
    made = await create(prompts, "p", "new")
    assert (await render(prompts, "p")).text == "new"
    assert made.latest_version == 1
