"""Experiments through the real server: from the start to the winner's label."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster_server.prompts.assignment import pick
from stationmaster_server.prompts.experiment_model import Variant

from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import VARIANTS, create, experiment, label, member_key, note, render, results, revise, started

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


async def test_units_are_given_variants_as_the_hash_says_and_always_the_same(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    salt = running.name.removeprefix("experiments/")
    variants = [Variant(name, version, 1) for name, version in VARIANTS]
    seen = Counter[str]()
    for number in range(60):
        unit = f"users/{number}"
        rendered = await render(tried, "p", unit=unit)
        expected = pick(salt, variants, unit)
        selection = rendered.selection
        assert selection.reason == pb.SELECTION_REASON_EXPERIMENT
        assert (selection.experiment, selection.variant) == (running.name, expected.variant_id)
        assert rendered.text == ("one", "two")[expected.version - 1]
        assert (await render(tried, "p", unit=unit, label="production")).selection.variant == expected.variant_id
        seen[selection.variant] += 1
    shown = await results(tried, running)
    assert {each.variant: each.exposures for each in shown.variants} == dict(seen)
    assert not shown.sample_ratio_mismatch


async def test_without_a_unit_before_the_start_and_after_the_end_the_label_is_given(
    tried: PromptServiceAsyncStub,
) -> None:
    made = await experiment(tried, variants=[pb.ExperimentVariant(variant=n, version=2) for n in ("a", "b")])

    async def text(**fields: Any) -> str:
        return (await render(tried, "p", **fields)).text

    assert await text(unit="u") == "one"
    await tried.StartExperiment(pb.StartExperimentRequest(name=made.name))
    assert await text(unit="u") == "two"
    assert await text() == "one"
    assert await text(unit="u", version=1) == "one"
    assert await text(unit="u", label="latest") == "two"
    await tried.StopExperiment(pb.StopExperimentRequest(name=made.name))
    assert await text(unit="u") == "one"


async def test_concluding_moves_the_label_to_the_winner_in_one_step(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    for attempt in (label(tried, "p", "production", 2), revise(tried, "p", "three", "production")):
        refusal = await refused(attempt)
        assert (refusal.reason, running.name in refusal.message) == ("PROMPT_IN_USE", True)
    unknown = pb.ConcludeExperimentRequest(name=running.name, winner="nobody")
    assert (await refused(tried.ConcludeExperiment(unknown))).fields == ["winner"]
    concluded = await tried.ConcludeExperiment(pb.ConcludeExperimentRequest(name=running.name, winner="treatment"))
    assert (concluded.state, concluded.winner) == (pb.EXPERIMENT_STATE_CONCLUDED, "treatment")
    rendered = await render(tried, "p", unit="users/1")
    assert (rendered.text, rendered.selection.experiment) == ("two", "")
    assert dict((await tried.GetPrompt(pb.GetPromptRequest(name="prompts/p"))).labels) == {"production": 2}


async def test_an_experiment_does_what_its_state_allows_and_says_so(tried: PromptServiceAsyncStub) -> None:
    made = await experiment(tried)
    refusal = await refused(tried.ConcludeExperiment(pb.ConcludeExperimentRequest(name=made.name)))
    assert (refusal.reason, refusal.metadata["from"], refusal.metadata["to"]) == (
        "ILLEGAL_TRANSITION",
        "DRAFT",
        "CONCLUDED",
    )
    await tried.StartExperiment(pb.StartExperimentRequest(name=made.name))
    assert (
        await refused(tried.StartExperiment(pb.StartExperimentRequest(name=made.name)))
    ).reason == "ILLEGAL_TRANSITION"
    await tried.StopExperiment(pb.StopExperimentRequest(name=made.name))
    ended = await tried.ConcludeExperiment(pb.ConcludeExperimentRequest(name=made.name))
    assert ended.winner == ""
    assert (
        await refused(tried.StopExperiment(pb.StopExperimentRequest(name=made.name)))
    ).reason == "ILLEGAL_TRANSITION"


async def test_a_protected_label_is_not_moved_by_a_members_conclusion(
    server: RunningServer, prompts: PromptServiceAsyncStub
) -> None:
    await create(prompts, "p", "one", "production", protected_labels=["production"])
    await revise(prompts, "p", "two")
    running = await started(prompts)
    async with server.channel(await member_key(server)) as channel:
        member: PromptServiceAsyncStub = PromptServiceStub(channel)
        request = pb.ConcludeExperimentRequest(name=running.name, winner="treatment")
        assert (await refused(member.ConcludeExperiment(request))).reason == "ROLE_INSUFFICIENT"
        await member.StopExperiment(pb.StopExperimentRequest(name=running.name))
        assert (await refused(started(member))).reason == "ROLE_INSUFFICIENT"
    assert (await render(prompts, "p")).text == "one"


async def test_the_first_outcome_of_a_unit_counts(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    given = (await render(tried, "p", unit="users/1")).selection.variant
    first = await note(tried, running, "users/1", 1)
    assert (first.variant, first.counted) == (given, True)
    assert not (await note(tried, running, "users/1", 0)).counted
    assert (await note(tried, running, "users/1", 0.25, metric=pb.OUTCOME_METRIC_LATENCY)).counted
    shown = await results(tried, running)
    (variant,) = [each for each in shown.variants if each.metrics]
    assert variant.variant == given
    measured = {each.metric: (each.count, each.estimate.mean) for each in variant.metrics}
    assert measured == {pb.OUTCOME_METRIC_SUCCESS: (1, 1.0), pb.OUTCOME_METRIC_LATENCY: (1, 0.25)}


@pytest.mark.parametrize(
    ("metric", "outcome"),
    [
        (pb.OUTCOME_METRIC_SUCCESS, 0.5),
        (pb.OUTCOME_METRIC_LATENCY, -1),
        (pb.OUTCOME_METRIC_COST, -1),
        (pb.OUTCOME_METRIC_SCORE, float("nan")),
        (pb.OUTCOME_METRIC_SCORE, float("inf")),
    ],
)
async def test_a_figure_that_the_metric_does_not_have_is_refused(
    tried: PromptServiceAsyncStub, metric: pb.OutcomeMetric.ValueType, outcome: float
) -> None:
    request = pb.RecordOutcomeRequest(name="prompts/p", metric=metric, outcome=outcome)
    assert (await refused(tried.RecordOutcome(request))).fields == ["outcome"]


async def test_a_difference_is_found_and_its_leader_named(
    server: RunningServer, tried: PromptServiceAsyncStub, administrator_url: str
) -> None:
    running = await started(tried)
    await plant(administrator_url, running, {"control": (1000, 500), "treatment": (1000, 620)})
    shown = await results(tried, running)
    (comparison,) = shown.comparisons
    assert (comparison.variant, comparison.significant, comparison.better) == ("treatment", True, True)
    assert comparison.difference.lower > 0
    assert (shown.leader, shown.sample_ratio_mismatch) == ("treatment", False)
    assert "treatment" in shown.advice


async def test_nothing_is_said_before_there_are_enough_outcomes(
    tried: PromptServiceAsyncStub, administrator_url: str
) -> None:
    running = await started(tried, minimum_outcomes=500)
    await plant(administrator_url, running, {"control": (400, 100), "treatment": (400, 390)})
    shown = await results(tried, running)
    (comparison,) = shown.comparisons
    assert (comparison.enough, comparison.significant, shown.leader) == (False, False, "")


async def test_a_planted_sample_ratio_mismatch_is_flagged_and_no_leader_named(
    tried: PromptServiceAsyncStub, administrator_url: str
) -> None:
    running = await started(tried)
    await plant(administrator_url, running, {"control": (1200, 400), "treatment": (900, 800)})
    shown = await results(tried, running)
    assert shown.sample_ratio_mismatch
    assert shown.sample_ratio_p_value < 0.001
    assert shown.leader == ""
    assert [each.expected_exposures for each in shown.variants] == [1050, 1050]


async def plant(url: str, running: pb.Experiment, figures: dict[str, tuple[int, int]]) -> None:
    """Units and their successes, as if they had come one by one."""
    connection = await asyncpg.connect(url)
    experiment_id = UUID(running.name.removeprefix("experiments/"))
    for variant, (units, successes) in figures.items():
        await connection.execute(
            "INSERT INTO prompt_exposures (organization_id, experiment_id, unit, variant)"
            " SELECT organization_id, id, $2 || n, $2 FROM prompt_experiments, generate_series(1, $3::int) AS n"
            " WHERE id = $1",
            experiment_id,
            variant,
            units,
        )
        await connection.execute(
            "INSERT INTO prompt_outcomes"
            " (organization_id, id, prompt_uid, version, label, metric, outcome,"
            " experiment_id, variant, unit)"
            " SELECT organization_id, gen_random_uuid(), prompt_uid, 1, 'production', 'SUCCESS',"
            " (n <= $4::int)::int, id, $2, $2 || n FROM prompt_experiments, generate_series(1, $3::int) AS n"
            " WHERE id = $1",
            experiment_id,
            variant,
            units,
            successes,
        )
    await connection.close()


async def test_experiments_of_a_group_share_the_units_out_and_give_them_back(tried: PromptServiceAsyncStub) -> None:
    first = await started(tried, traffic_share=0.6, exclusion_group="g")
    second = await experiment(tried, traffic_share=0.5, exclusion_group="g")
    refusal = await refused(tried.StartExperiment(pb.StartExperimentRequest(name=second.name)))
    assert (refusal.reason, "40.00%" in refusal.message) == ("PROMPT_IN_USE", True)
    third = await started(tried, traffic_share=0.4, exclusion_group="g")
    taking_part = Counter[str]()
    for number in range(60):
        taking_part[(await render(tried, "p", unit=f"u{number}")).selection.experiment] += 1
    assert set(taking_part) == {first.name, third.name}
    await tried.StopExperiment(pb.StopExperimentRequest(name=first.name))
    await tried.StartExperiment(pb.StartExperimentRequest(name=second.name))


async def test_of_many_that_start_at_once_no_two_get_the_same_units(tried: PromptServiceAsyncStub) -> None:
    made = [await experiment(tried, traffic_share=0.3, exclusion_group="g") for _ in range(6)]
    calls = (tried.StartExperiment(pb.StartExperimentRequest(name=each.name)) for each in made)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, pb.Experiment) for answer in answers) == 3


async def test_two_experiments_on_one_label_need_a_group(tried: PromptServiceAsyncStub) -> None:
    await started(tried)
    other = await experiment(tried)
    refusal = await refused(tried.StartExperiment(pb.StartExperimentRequest(name=other.name)))
    assert refusal.reason == "PROMPT_IN_USE"


async def test_an_experiment_needs_the_label_that_it_is_about(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "one")
    made = await experiment(prompts, variants=[pb.ExperimentVariant(variant=n, version=1) for n in ("a", "b")])
    refusal = await refused(prompts.StartExperiment(pb.StartExperimentRequest(name=made.name)))
    assert refusal.reason == "PROMPT_MISSING"


async def test_no_variant_shares_its_draw_with_the_traffic(tried: PromptServiceAsyncStub) -> None:
    variants = [pb.ExperimentVariant(variant=name, version=1) for name in ("traffic", "other")]
    assert (await refused(experiment(tried, variants=variants))).fields == ["experiment.variants"]


async def test_what_makes_no_experiment_is_refused_field_by_field(tried: PromptServiceAsyncStub) -> None:
    one = pb.ExperimentVariant(variant="a", version=9)
    refusal = await refused(experiment(tried, variants=[one], label="latest"))
    assert set(refusal.fields) == {"experiment.variants", "experiment.label", "experiment.variants[0].version"}


async def test_a_prompt_with_a_running_experiment_is_deleted_by_force_only(tried: PromptServiceAsyncStub) -> None:
    running = await started(tried)
    assert (await refused(tried.DeletePrompt(pb.DeletePromptRequest(name="prompts/p")))).reason == "PROMPT_IN_USE"
    await tried.DeletePrompt(pb.DeletePromptRequest(name="prompts/p", force=True))
    assert (await refused(tried.GetExperiment(pb.GetExperimentRequest(name=running.name)))).code == "NOT_FOUND"


async def test_experiments_are_listed_by_state_and_prompt(tried: PromptServiceAsyncStub) -> None:
    running, draft = await started(tried), await experiment(tried)

    async def names(condition: str) -> list[str]:
        answer = await tried.ListExperiments(pb.ListExperimentsRequest(filter=condition))
        return [each.name for each in answer.experiments]

    assert await names("") == [draft.name, running.name]
    assert await names("state = RUNNING") == [running.name]
    assert await names('prompt = "prompts/other"') == []
