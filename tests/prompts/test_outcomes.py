"""What an outcome counts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster_server.prompts.assignment import slot

from tests.promises.refusal import refused
from tests.prompts.making import VARIANTS, experiment, note, render, results, started

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


def outsider(running: pb.Experiment) -> str:
    """A unit that takes no part in an experiment of half of all."""
    layer = running.name.removeprefix("experiments/")
    return next(unit for unit in map(str, range(1000)) if slot(layer, unit) >= 5_000)


async def counted(prompts: PromptServiceAsyncStub, running: pb.Experiment) -> list[tuple[int, int]]:
    """Exposures and outcomes, of each variant that has any."""
    shown = await results(prompts, running)
    found = [(each.exposures, sum(metric.count for metric in each.metrics)) for each in shown.variants]
    return [each for each in found if any(each)]


async def test_an_outcome_that_is_faster_than_the_exposure_counts_and_notes_it(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    noted = await note(tried, running, "users/1", 1)
    assert (noted.counted, noted.variant) == (True, (await render(tried, "p", unit="users/1")).selection.variant)
    assert await counted(tried, running) == [(1, 1)]


async def test_an_outcome_of_a_unit_that_takes_no_part_is_of_its_version_alone(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried, traffic_share=0.5)
    unit = outsider(running)
    for version, expected in ((0, 1), (2, 2)):
        noted = await note(tried, running, unit, 1, version=version)
        assert (noted.prompt_version, noted.variant, noted.counted) == (f"prompts/p/versions/{expected}", "", False)
    assert await counted(tried, running) == []
    answer = await tried.GetPromptAnalytics(pb.GetPromptAnalyticsRequest(name="prompts/p"))
    assert [(each.version, each.outcomes[0].count) for each in answer.totals] == [(1, 1), (2, 1)]


async def test_after_the_end_only_what_was_given_before_counts(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    given = (await render(tried, "p", unit="users/1")).selection.variant
    await results(tried, running)  # the exposure is written
    await tried.StopExperiment(pb.StopExperimentRequest(name=running.name))
    late = await note(tried, running, "users/1", 1)
    assert (late.counted, late.variant) == (True, given)
    assert not (await note(tried, running, "users/2", 1)).counted
    assert await counted(tried, running) == [(1, 1)]


@pytest.mark.parametrize(("field", "value"), [("version", None), ("label", "staging")])
async def test_an_outcome_is_not_said_to_be_of_something_else_than_the_unit_was_given(
    tried: PromptServiceAsyncStub, field: str, value: Any
) -> None:
    running = await started(tried)
    given = (await render(tried, "p", unit="users/1")).selection
    version = dict(VARIANTS)[given.variant]
    another = value or 3 - version
    refusal = await refused(note(tried, running, "users/1", 1, **{field: another}))
    assert (refusal.fields, running.name in refusal.message) == ([field], True)
    assert (await note(tried, running, "users/1", 1, version=version, label="production")).counted


async def test_a_draft_is_neither_stopped_nor_told_what_came_of_it(tried: PromptServiceAsyncStub) -> None:
    draft = await experiment(tried)
    refusal = await refused(tried.StopExperiment(pb.StopExperimentRequest(name=draft.name)))
    assert (refusal.reason, refusal.metadata["from"], refusal.metadata["to"]) == (
        "ILLEGAL_TRANSITION",
        "DRAFT",
        "STOPPED",
    )
    refusal = await refused(note(tried, draft, "users/1", 1))
    assert (refusal.reason, "never started" in refusal.message) == ("ILLEGAL_TRANSITION", True)
