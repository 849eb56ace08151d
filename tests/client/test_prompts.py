"""The client's parts for prompts and experiments, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster_client import Client, SyncClient, errors

from tests.fixtures.server import RunningServer


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client.connect(server.target, server.admin_key) as made:
        yield made


async def test_a_prompt_is_made_revised_labelled_compared_filled_in_and_deleted(client: Client) -> None:
    prompts = client.prompts
    made = await prompts.create("greeting", "Hello {{ name }}", labels=["production"], message="first")
    assert (made.version, made.message) == (1, "first")
    changed = await prompts.update(pb.Prompt(name=made.name, template="Dear {{ name }}"), labels=["staging"])
    assert dict(changed.labels) == {"production": 1, "staging": 2}
    assert (await prompts.get("greeting", label="production")).template == "Hello {{ name }}"
    assert (await prompts.get("greeting", version=2)).template == "Dear {{ name }}"
    assert (await prompts.render("greeting", {"name": "Ada"})).text == "Hello Ada"
    await prompts.label("greeting", "production", 2)
    assert (await prompts.render("greeting", {"name": "Ada"})).text == "Dear Ada"
    assert (await prompts.render("greeting", {"name": "Ada"}, version=1)).text == "Hello Ada"
    assert [line.text for line in (await prompts.diff("greeting")).lines] == ["Hello {{ name }}", "Dear {{ name }}"]
    assert [each.version async for each in prompts.versions("greeting", page_size=1)] == [2, 1]
    assert [each.name async for each in prompts.list()] == ["prompts/greeting"]
    with pytest.raises(errors.InvalidArgument):
        await prompts.render("greeting")
    await prompts.delete("greeting")
    with pytest.raises(errors.NotFound):
        await prompts.get("greeting")


async def test_customizations_are_ones_own(client: Client) -> None:
    prompts = client.prompts
    await prompts.create("p", "x")
    made = await prompts.customize("p", "mine", agent="helper")
    assert (await prompts.render("p", agent="helper")).text == "x\n\nmine"
    made.mode = pb.CUSTOMIZATION_MODE_REPLACE
    await prompts.recustomize(made, ["mode"])
    assert (await prompts.render("p", agent="helper")).text == "mine"
    assert await prompts.customization(made.name) in [one async for one in prompts.customizations("p")]
    await prompts.uncustomize(made.name)
    assert (await prompts.render("p", agent="helper")).text == "x"


async def test_metrics_and_modes_are_named_as_at_the_command_line(client: Client) -> None:
    await client.prompts.create("p", "x")
    await client.prompts.record("p", "success", 1)
    await client.prompts.record("p", "OUTCOME_METRIC_SCORE", 0.5)
    made = await client.prompts.customize("p", "mine", mode="prepend")
    assert made.mode == pb.CUSTOMIZATION_MODE_PREPEND
    for wrong in ("succes", "unspecified"):
        with pytest.raises(ValueError, match="is none of success, score, latency, cost"):
            await client.prompts.record("p", wrong, 1)


async def test_an_experiment_runs_and_is_concluded(client: Client) -> None:
    await client.prompts.create("p", "one", labels=["production"])
    await client.prompts.update(pb.Prompt(name="prompts/p", template="two"))
    variants = [pb.ExperimentVariant(variant=name, version=number) for name, number in (("a", 1), ("b", 2))]
    made = await client.experiments.create(pb.Experiment(prompt="prompts/p", variants=variants))
    await client.experiments.start(made.name)
    for number in range(20):
        unit = f"u{number}"
        given = await client.prompts.render("p", unit=unit)
        noted = await client.prompts.record("p", pb.OUTCOME_METRIC_SUCCESS, 1, experiment=made.name, unit=unit)
        assert (noted.variant, noted.counted) == (given.selection.variant, True)
    shown = await client.experiments.results(made.name)
    assert sum(each.exposures for each in shown.variants) == 20
    assert (await client.experiments.conclude(made.name, "b")).winner == "b"
    assert [each.name async for each in client.experiments.list()] == [made.name]
    assert (await client.prompts.render("p")).text == "two"
    totals = (await client.prompts.analytics("p", hourly=True)).totals
    assert sum(each.renders for each in totals) == 21


async def test_the_sync_client_does_the_same(server: RunningServer) -> None:
    def work() -> str:
        with SyncClient.connect(server.target, server.admin_key) as client:
            client.prompts.create("p", "Hello {{ name }}", labels=["production"])
            return client.prompts.render("p", {"name": "Ada"}).text

    assert await asyncio.to_thread(work) == "Hello Ada"
