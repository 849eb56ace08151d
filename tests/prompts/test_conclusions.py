"""A conclusion moves its label as everybody else has to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stationmaster.v1 import audit_pb2
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.audit_pb2_grpc import AuditServiceStub

from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import create, experiment, render, revise, started

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


def conclude(experiment: pb.Experiment, winner: str = "treatment") -> pb.ConcludeExperimentRequest:
    return pb.ConcludeExperimentRequest(name=experiment.name, winner=winner)


async def test_the_label_that_a_conclusion_moves_is_in_the_audit_trail(
    server: RunningServer, tried: PromptServiceAsyncStub
) -> None:
    await tried.ConcludeExperiment(conclude(await started(tried)))
    async with server.channel() as channel:
        request = audit_pb2.ListAuditEventsRequest(filter='action = "prompt.set_label"')
        (event,) = (await AuditServiceStub(channel).ListAuditEvents(request)).audit_events
    assert event.resource == "prompts/p"
    assert dict(event.details) == {"label": "production", "version": 2}


async def test_a_conclusion_that_would_close_a_circle_is_refused(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "one", "production")
    await create(prompts, "other", '{% include "p" %}', "production")
    await revise(prompts, "p", '{% include "other" %}')
    running = await started(prompts)
    refusal = await refused(prompts.ConcludeExperiment(conclude(running)))
    assert (refusal.reason, "p@2 -> other@1 -> p@2" in refusal.message) == ("PROMPT_CYCLE", True)
    shown = await prompts.GetExperiment(pb.GetExperimentRequest(name=running.name))
    assert shown.state == pb.EXPERIMENT_STATE_RUNNING
    assert (await render(prompts, "other")).text == "one"


async def test_no_winner_takes_a_label_on_which_another_experiment_runs(tried: PromptServiceAsyncStub) -> None:
    first = await started(tried, traffic_share=0.5, exclusion_group="g")
    second = await started(tried, traffic_share=0.5, exclusion_group="g")
    refusal = await refused(tried.ConcludeExperiment(conclude(first)))
    assert (refusal.reason, second.name in refusal.message) == ("PROMPT_IN_USE", True)
    assert (await render(tried, "p")).text == "one"
    await tried.ConcludeExperiment(conclude(second, winner=""))
    assert (await tried.ConcludeExperiment(conclude(first))).winner == "treatment"
    assert (await render(tried, "p")).text == "two"


async def test_the_winner_of_a_stopped_experiment_waits_for_the_one_that_runs(tried: PromptServiceAsyncStub) -> None:
    stopped = await started(tried)
    await tried.StopExperiment(pb.StopExperimentRequest(name=stopped.name))
    running = await started(tried)
    assert (await refused(tried.ConcludeExperiment(conclude(stopped)))).reason == "PROMPT_IN_USE"
    await tried.StopExperiment(pb.StopExperimentRequest(name=running.name))
    await tried.ConcludeExperiment(conclude(stopped))


async def test_a_repeated_conclusion_is_answered_as_the_first_was(tried: PromptServiceAsyncStub) -> None:
    request = conclude(await started(tried))
    request.request_id = "0198c5a4-0000-4000-8000-000000000001"
    first = await tried.ConcludeExperiment(request)
    await experiment(tried)
    assert await tried.ConcludeExperiment(request) == first
