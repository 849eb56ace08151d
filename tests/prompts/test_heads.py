"""What a server keeps of prompts is bounded, and nothing goes wrong when it is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.prompts import heads
from stationmaster_server.prompts.heads import Head, Heads

from tests.fixtures.database import make_tenant
from tests.prompts.making import create, render, revise

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub

BOUND = 200_000
VERSIONS = 30
VERSION_BYTES = 20_000


INSERT = (
    "INSERT INTO prompts (organization_id, prompt_id, uid, display_name, description, tags, protected_labels,"
    " default_label, attributes, rules, latest_version, etag)"
    " VALUES ($1, $2, gen_random_uuid(), '', '', '[]', '{}', '', '[]', '[]', 1, 'e')"
)
VERSION = (
    "INSERT INTO prompt_versions (organization_id, prompt_id, version, template, variables, includes, included_ids,"
    " message, author_id) SELECT $1, $2, n, repeat('x', $4), '[]', '{}', '{}', '', $3"
    " FROM generate_series(1, $5::int) AS n"
)


@pytest.fixture
async def known(database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Heads:
    """What may be known of three prompts with long versions: ten of them at most."""
    monkeypatch.setattr(heads, "_MOST_BYTES", BOUND)
    async with database.system() as tx:
        for prompt_id in ("a", "b", "c"):
            await tx.execute(INSERT, tenant.organization_id, prompt_id)
            await tx.execute(VERSION, tenant.organization_id, prompt_id, tenant.user_id, VERSION_BYTES, VERSIONS)
    return Heads(database, Listener(database))


async def test_the_versions_that_are_kept_are_bounded_by_their_bytes(known: Heads, tenant: Tenant) -> None:
    for number in range(1, VERSIONS + 1):
        for prompt_id in ("a", "b", "c"):
            head = await known.get(tenant, prompt_id)
            assert head is not None
            version = await known.version(tenant, head, number)
            assert version is not None
            assert version.version == number
            assert sum(map(held, known._kept.get(tenant.organization_id, {}).values())) < BOUND
    assert known._size < BOUND


async def test_who_has_much_takes_nothing_from_others(database: Database, known: Heads, tenant: Tenant) -> None:
    other = await make_tenant(database)
    async with database.system() as tx:
        await tx.execute(INSERT, other.organization_id, "a")
        await tx.execute(VERSION, other.organization_id, "a", other.user_id, VERSION_BYTES, VERSIONS)
    theirs = await known.get(other, "a")
    for number in range(1, VERSIONS + 1):
        for prompt_id in ("a", "b", "c"):
            head = await known.get(tenant, prompt_id)
            assert head is not None
            await known.version(tenant, head, number)
    assert known._kept[other.organization_id] == {"a": theirs}


async def test_what_is_forgotten_is_not_counted_any_more(known: Heads, tenant: Tenant) -> None:
    head = await known.get(tenant, "a")
    assert head is not None
    for number in range(1, 8):
        await known.version(tenant, head, number)
    assert 7 * VERSION_BYTES < known._size < BOUND
    head.until = 0  # it is read anew, and takes over what it had
    again = await known.get(tenant, "a")
    assert again is not None
    assert again is not head
    assert held(again) == 7 * VERSION_BYTES <= known._size
    known.forget(tenant.organization_id, "a")
    assert known._size == 0


def held(head: Head) -> int:
    return sum(len(version.template) for version in head.versions.values())


async def test_a_server_that_may_keep_nothing_renders_all_the_same(
    prompts: PromptServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "_MOST_BYTES", 0)
    await create(prompts, "part", "{{ name }}")
    await create(prompts, "p", 'one {% include "part" %}', "production")
    await revise(prompts, "p", 'two {% include "part" %}')
    custom = pb.PromptCustomization(template="Be brief.")
    await prompts.CreatePromptCustomization(
        pb.CreatePromptCustomizationRequest(parent="prompts/p", customization=custom)
    )
    for _ in range(3):
        assert (await render(prompts, "p", {"name": "Ada"})).text == "one Ada\n\nBe brief."
        assert (await render(prompts, "p", {"name": "Ada"}, label="latest")).text == "two Ada\n\nBe brief."
