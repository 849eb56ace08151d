"""What users want of prompts: each its own, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1 import task_pb2
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.roles import APP_ROLE
from stationmaster_server.prompts.model import Customization, CustomizationMode

from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import create, label, member_key, render, revise, struct

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


async def customize(prompts: PromptServiceAsyncStub, template: str = "", **fields: Any) -> pb.PromptCustomization:
    if "variables" in fields:
        fields["variables"] = struct(fields["variables"])
    request = pb.CreatePromptCustomizationRequest(
        parent="prompts/p", customization=pb.PromptCustomization(template=template, **fields)
    )
    return await prompts.CreatePromptCustomization(request)


async def test_a_customization_is_appended_put_before_or_in_place(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "Hello {{ name }}.")
    made = await customize(prompts, "Answer {{ name }} briefly.")
    rendered = await render(prompts, "p", {"name": "Ada"})
    assert rendered.text == "Hello Ada.\n\nAnswer Ada briefly."
    assert rendered.customization == made.name
    for mode, text in (
        (pb.CUSTOMIZATION_MODE_PREPEND, "Answer Ada briefly.\n\nHello Ada."),
        (pb.CUSTOMIZATION_MODE_REPLACE, "Answer Ada briefly."),
    ):
        changed = pb.PromptCustomization(name=made.name, mode=mode)
        await prompts.UpdatePromptCustomization(pb.UpdatePromptCustomizationRequest(customization=changed))
        assert (await render(prompts, "p", {"name": "Ada"})).text == text
    without = await render(prompts, "p", {"name": "Ada"}, without_customization=True)
    assert (without.text, without.customization) == ("Hello Ada.", "")


async def test_the_one_for_the_agent_goes_before_the_one_for_all(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "x")
    await customize(prompts, "all")
    await customize(prompts, "coder", agent="agents/coder")
    assert (await render(prompts, "p")).text == "x\n\nall"
    assert (await render(prompts, "p", agent="agents/coder")).text == "x\n\ncoder"
    assert (await render(prompts, "p", agent="agents/other")).text == "x\n\nall"
    assert (await refused(customize(prompts, "again"))).code == "ALREADY_EXISTS"


async def test_values_of_a_customization_fill_in_what_is_not_given(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "{{ tone }}")
    assert (await refused(render(prompts, "p"))).fields == ["variables.tone"]
    made = await customize(prompts, variables={"tone": "kind"})
    assert (await render(prompts, "p")).text == "kind"
    assert (await render(prompts, "p", {"tone": "stern"})).text == "stern"
    disabled = pb.PromptCustomization(name=made.name, disabled=True)
    await prompts.UpdatePromptCustomization(pb.UpdatePromptCustomizationRequest(customization=disabled))
    assert (await refused(render(prompts, "p"))).fields == ["variables.tone"]


async def test_a_value_that_the_version_no_longer_declares_is_left_out(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "{{ tone }} {{ name }}", "production")
    await customize(prompts, variables={"tone": "kind", "name": "Ada"})
    assert (await render(prompts, "p")).text == "kind Ada"
    declared = [task_pb2.VariableDeclaration(name="name")]
    await revise(prompts, "p", "Dear {{ name }}", "production", variables=declared)
    assert (await render(prompts, "p")).text == "Dear Ada"
    assert (await refused(render(prompts, "p", {"tone": "stern"}))).fields == ["variables.tone"]


async def test_a_repeat_is_answered_though_the_prompt_and_the_customization_are_gone(
    prompts: PromptServiceAsyncStub,
) -> None:
    await create(prompts, "p", "x")
    new = pb.CreatePromptCustomizationRequest(
        parent="prompts/p", customization=pb.PromptCustomization(template="mine"), request_id=str(new_id())
    )
    made = await prompts.CreatePromptCustomization(new)
    change = pb.UpdatePromptCustomizationRequest(
        customization=pb.PromptCustomization(name=made.name, template="other"), request_id=str(new_id())
    )
    changed = await prompts.UpdatePromptCustomization(change)
    await prompts.DeletePromptCustomization(pb.DeletePromptCustomizationRequest(name=made.name))
    await prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/p"))
    assert await prompts.CreatePromptCustomization(new) == made
    assert await prompts.UpdatePromptCustomization(change) == changed


async def test_it_follows_the_prompts_versions_and_parts(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "part", "1", "production")
    await create(prompts, "p", 'one{% include "part" %}', "production")
    await customize(prompts, "mine")
    assert (await render(prompts, "p")).text == "one1\n\nmine"
    await revise(prompts, "part", "2", "production")
    assert (await render(prompts, "p")).text == "one2\n\nmine"
    await revise(prompts, "p", "two")
    await label(prompts, "p", "production", 2)
    assert (await render(prompts, "p")).text == "two\n\nmine"


@pytest.mark.parametrize("template", ["{{ unknown }}", '{% include "part" %}', "{{", "{% for x in name %}"])
async def test_a_customization_that_cannot_be_is_refused(prompts: PromptServiceAsyncStub, template: str) -> None:
    await create(prompts, "p", "Hello {{ name }}.")
    assert "customization.template" in (await refused(customize(prompts, template))).fields


async def test_nobody_else_sees_gets_changes_or_is_given_it(
    server: RunningServer, prompts: PromptServiceAsyncStub
) -> None:
    await create(prompts, "p", "x")
    async with server.channel(await member_key(server)) as channel:
        member: PromptServiceAsyncStub = PromptServiceStub(channel)
        theirs = await customize(member, "theirs")
        mine = await customize(prompts, "mine")
        assert (await render(member, "p")).text == "x\n\ntheirs"
        assert (await render(prompts, "p")).text == "x\n\nmine"
        for name, other in ((theirs.name, prompts), (mine.name, member)):
            for attempt in (
                other.GetPromptCustomization(pb.GetPromptCustomizationRequest(name=name)),
                other.DeletePromptCustomization(pb.DeletePromptCustomizationRequest(name=name)),
                other.UpdatePromptCustomization(
                    pb.UpdatePromptCustomizationRequest(
                        customization=pb.PromptCustomization(name=name), update_mask=FieldMask(paths=["template"])
                    )
                ),
            ):
                assert (await refused(attempt)).code == "NOT_FOUND"
        listed = await member.ListPromptCustomizations(pb.ListPromptCustomizationsRequest(parent="prompts/p"))
        assert [one.name for one in listed.customizations] == [theirs.name]


async def test_row_level_security_keeps_users_of_one_organization_apart(
    database: Database, database_url: str, tenant: Tenant
) -> None:
    """By raw SQL that names neither organization nor user."""
    colleague = Tenant(tenant.organization_id, new_id())
    insert = (
        "INSERT INTO prompt_customizations (organization_id, id, prompt_id, user_id, agent_id, template, mode,"
        " variables, disabled, etag) VALUES ($1, $2, 'p', $3, $4, 'secret', 'APPEND', '{}', false, 'e')"
    )
    async with database.system() as tx:
        await tx.execute(
            "INSERT INTO prompts (organization_id, prompt_id, uid, display_name, description, tags, protected_labels,"
            " default_label, attributes, rules, latest_version, etag)"
            " VALUES ($1, 'p', $2, '', '', '[]', '{}', '', '[]', '[]', 1, 'e')",
            tenant.organization_id,
            new_id(),
        )
        await tx.execute(insert, tenant.organization_id, new_id(), tenant.user_id, "")
    for who, seen in ((tenant, 1), (colleague, 0)):
        async with database.tenant(who, read=True) as tx:
            assert await tx.fetchval("SELECT count(*) FROM prompt_customizations") == seen
        async with database.tenant(who) as tx:
            tx.audited = True
            assert await tx.execute("UPDATE prompt_customizations SET template = 'read'") == f"UPDATE {seen}"

    async def write_as(who: Tenant) -> None:
        async with database.tenant(who) as tx:
            tx.audited = True
            await tx.execute(insert, tenant.organization_id, new_id(), tenant.user_id, "other")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await write_as(colleague)
    await write_as(tenant)
    connection = await asyncpg.connect(database_url, server_settings={"role": APP_ROLE})
    try:
        assert await connection.fetchval("SELECT count(*) FROM prompt_customizations") == 0
        await connection.execute(f"SET stationmaster.organization = '{tenant.organization_id}'")
        assert await connection.fetchval("SELECT count(*) FROM prompt_customizations") == 0
        await connection.execute(f"SET stationmaster.\"user\" = '{tenant.user_id}'")
        assert await connection.fetchval("SELECT count(*) FROM prompt_customizations") == 2
    finally:
        await connection.close()


async def test_nor_can_they_read_it_in_the_first_answers_that_are_kept_for_repeats(
    database: Database, tenant: Tenant
) -> None:
    """By raw SQL that names neither organization nor user."""
    async with database.tenant(tenant) as tx:
        now, mode = datetime.now(UTC), CustomizationMode.APPEND
        one = Customization(new_id(), "p", tenant.user_id, "", "secret", mode, {}, False, "e", now, now)
        key = RequestKey(new_id(), "CreatePromptCustomization", b"f")
        assert await recall(tx, tenant, key, Customization) is None
        await remember(tx, tenant, key, one)
        tx.audited = True
    for who, seen in ((tenant, 1), (Tenant(tenant.organization_id, new_id()), 0)):
        async with database.tenant(who, read=True) as tx:
            assert await tx.fetchval("SELECT count(*) FROM request_ids WHERE answer IS NOT NULL") == seen
