"""Agents, sessions and tasks that take prompts: which version made each message is written in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from stationmaster.v1 import agent_pb2, session_pb2, task_pb2
from stationmaster.v1 import event_pb2 as events
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.agent_pb2_grpc import AgentServiceStub
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub

from tests.fixtures.server import RunningServer
from tests.promises.refusal import refused
from tests.prompts.making import create, label, revise, struct


class Everything:
    """Stubs of all services that have to do with prompts."""

    def __init__(self, channel: Any) -> None:
        self.prompts: Any = PromptServiceStub(channel)
        self.agents: Any = AgentServiceStub(channel)
        self.sessions: Any = SessionServiceStub(channel)
        self.tasks: Any = TaskServiceStub(channel)

    async def session(self, prompt: str, **variables: Any) -> str:
        """A session of a specification of its own."""
        spec = agent_pb2.AgentSpec(model="demo", prompt=prompt, prompt_variables=struct(variables))
        request = session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec))
        return str((await self.sessions.CreateSession(request)).name)

    async def send(self, session: str, text: str = "/say 3") -> events.TurnFinished:
        """How the turn of a message ends."""
        async with asyncio.timeout(30):
            async for batch in self.sessions.SendMessage(session_pb2.SendMessageRequest(session=session, text=text)):
                for event in batch.events:
                    if event.HasField("turn_finished"):
                        finished: events.TurnFinished = event.turn_finished
        return finished

    async def provenances(self, session: str) -> list[tuple[str, str]]:
        """Version and variant of each answer, the oldest first."""
        answer = await self.sessions.ListMessages(
            session_pb2.ListMessagesRequest(parent=session, filter="role = ASSISTANT", order_by="create_time")
        )
        return [(one.provenance.prompt_version, one.provenance.prompt_variant) for one in answer.messages]


@pytest_asyncio.fixture
async def all_of(server: RunningServer) -> AsyncIterator[Everything]:
    async with server.channel() as channel:
        yield Everything(channel)


async def test_every_answer_tells_the_version_and_a_moved_label_counts_from_the_next_turn(all_of: Everything) -> None:
    await create(all_of.prompts, "p", "Be {{ tone }}.", "production")
    await revise(all_of.prompts, "p", "Be very {{ tone }}.", "staging")
    sessions = [
        await all_of.session(prompt, tone="kind") for prompt in ("p", "p@staging", "p@1", "prompts/p/versions/2")
    ]
    for session, version in zip(sessions, (1, 2, 1, 2), strict=True):
        assert (await all_of.send(session)).state == events.TURN_STATE_COMPLETED
        assert await all_of.provenances(session) == [(f"prompts/p/versions/{version}", "")]
    await label(all_of.prompts, "p", "production", 2)
    await all_of.send(sessions[0])
    assert [version for version, _ in await all_of.provenances(sessions[0])] == [
        "prompts/p/versions/1",
        "prompts/p/versions/2",
    ]


async def test_an_agents_prompt_is_filled_in_with_its_values_and_the_sessions(all_of: Everything) -> None:
    await create(all_of.prompts, "p", "Be {{ tone }} to {{ name }}.")
    spec = agent_pb2.AgentSpec(model="demo", prompt="p", prompt_variables=struct({"tone": "kind"}))
    request = agent_pb2.CreateAgentRequest(agent_id="helper", agent=agent_pb2.Agent(spec=spec))
    made = await all_of.agents.CreateAgent(request)
    assert made.spec.prompt == "p"
    assert dict(made.spec.prompt_variables) == {"tone": "kind"}
    asked = session_pb2.Session(agent="agents/helper", prompt_variables=struct({"name": "Ada"}))
    session = await all_of.sessions.CreateSession(session_pb2.CreateSessionRequest(session=asked))
    assert dict(session.spec.prompt_variables) == {"tone": "kind", "name": "Ada"}
    assert (await all_of.send(session.name)).state == events.TURN_STATE_COMPLETED
    without = session_pb2.CreateSessionRequest(session=session_pb2.Session(agent="agents/helper"))
    bare = await all_of.sessions.CreateSession(without)
    finished = await all_of.send(bare.name)
    assert (finished.state, finished.reason) == (events.TURN_STATE_FAILED, "INVALID_FIELD")
    assert "variables.name" in finished.message


async def test_a_prompt_that_is_not_there_is_refused_when_it_is_named_and_told_when_it_went_away(
    all_of: Everything,
) -> None:
    await create(all_of.prompts, "p", "x", "production")
    await create(all_of.prompts, "unset", "x", default_label="staging")
    for prompt in ("nobody", "p@nowhere", "p@7", "unset"):
        assert (await refused(all_of.session(prompt))).reason == "PROMPT_MISSING"
        spec = agent_pb2.AgentSpec(model="demo", prompt=prompt)
        request = agent_pb2.CreateAgentRequest(agent_id="a", agent=agent_pb2.Agent(spec=spec))
        assert (await refused(all_of.agents.CreateAgent(request))).reason == "PROMPT_MISSING"
    assert (await refused(all_of.session("p@@"))).code == "INVALID_ARGUMENT"
    session = await all_of.session("p@production")
    await label(all_of.prompts, "p", "production", 0)
    finished = await all_of.send(session)
    assert (finished.state, finished.reason) == (events.TURN_STATE_FAILED, "RESOURCE_NOT_FOUND")
    await label(all_of.prompts, "p", "production", 1)
    assert (await all_of.send(session)).state == events.TURN_STATE_COMPLETED


async def test_an_experiment_tells_sessions_apart_and_each_answer_tells_its_variant(all_of: Everything) -> None:
    await create(all_of.prompts, "p", "one", "production")
    await revise(all_of.prompts, "p", "two")
    variants = [pb.ExperimentVariant(variant=name, version=version) for name, version in (("a", 1), ("b", 2))]
    made = await all_of.prompts.CreateExperiment(
        pb.CreateExperimentRequest(experiment=pb.Experiment(prompt="prompts/p", variants=variants))
    )
    await all_of.prompts.StartExperiment(pb.StartExperimentRequest(name=made.name))
    seen = set()
    for _ in range(12):
        session = await all_of.session("p")
        await all_of.send(session)
        await all_of.send(session)
        first, second = await all_of.provenances(session)
        assert first == second
        version, variant = first
        assert (version[-1], variant) in (("1", f"{made.name}/a"), ("2", f"{made.name}/b"))
        seen.add(variant)
    assert len(seen) == 2
    shown = await all_of.prompts.GetExperimentResults(pb.GetExperimentResultsRequest(name=made.name))
    assert sum(each.exposures for each in shown.variants) == 12


async def test_tokens_and_cost_of_turns_are_in_the_analytics(all_of: Everything) -> None:
    await create(all_of.prompts, "p", "x", "production")
    session = await all_of.session("p")
    for _ in range(2):
        await all_of.send(session)
    answer = await all_of.prompts.GetPromptAnalytics(pb.GetPromptAnalyticsRequest(name="prompts/p"))
    (total,) = answer.totals
    assert (total.version, total.label, total.model_calls, total.renders) == (1, "production", 2, 2)
    used = (await all_of.sessions.GetSession(session_pb2.GetSessionRequest(name=session))).usage
    assert (total.input_tokens, total.output_tokens) == (used.input_tokens, used.output_tokens)
    assert total.output_tokens > 0


async def cut(all_of: Everything, session: str) -> None:
    """A turn that is cancelled once its answer has begun."""
    request = session_pb2.SendMessageRequest(session=session, text="/say 100000")
    cancelled = False
    async with asyncio.timeout(30):
        async for batch in all_of.sessions.SendMessage(request):
            if not cancelled and (turns := [event.turn for event in batch.events if event.HasField("text_delta")]):
                cancelled = True
                await all_of.sessions.CancelTurn(session_pb2.CancelTurnRequest(name=turns[0]))
    assert cancelled


async def test_an_answer_that_was_cut_tells_its_version_too(all_of: Everything) -> None:
    await create(all_of.prompts, "p", "x")
    session = await all_of.session("p")
    await cut(all_of, session)
    assert await all_of.provenances(session) == [("prompts/p/versions/1", "")]


async def test_answers_that_were_cut_or_failed_count_for_their_prompt_as_for_their_session(
    all_of: Everything,
) -> None:
    await create(all_of.prompts, "p", "x", "production")
    session = await all_of.session("p")

    async def figures() -> tuple[int, int, int, int, int]:
        answer = await all_of.prompts.GetPromptAnalytics(pb.GetPromptAnalyticsRequest(name="prompts/p"))
        (total,) = answer.totals
        used = (await all_of.sessions.GetSession(session_pb2.GetSessionRequest(name=session))).usage
        counted = (total.model_calls, total.input_tokens, total.output_tokens, total.cost_micros)
        assert counted == (used.model_calls, used.input_tokens, used.output_tokens, used.cost_micros)
        return total.renders, *counted

    await cut(all_of, session)
    renders, calls, *_ = after_cut = await figures()
    assert (renders, calls) == (1, 1)
    assert (await all_of.send(session, "/say 3\n/fail auth")).state == events.TURN_STATE_FAILED
    renders, calls, *_ = after_failure = await figures()
    assert renders == 2
    assert calls > after_cut[1]
    await all_of.send(session)
    assert (await figures())[:2] == (3, after_failure[1] + 1)


async def test_a_task_sends_a_prompt_and_tells_which_version(all_of: Everything) -> None:
    await create(all_of.prompts, "question", "/say {{ count }}", "production")
    await create(all_of.prompts, "role", "Be {{ tone }}.", "production")
    payload = {
        "model": "demo",
        "prompt_from": "question@production",
        "prompt_variables": {"count": "{{ words }}"},
        "instructions_from": "role",
        "instructions_variables": {"tone": "kind"},
    }
    task = task_pb2.Task(
        kind="prompt", payload=struct(payload), variables=[task_pb2.VariableDeclaration(name="words", required=True)]
    )
    await all_of.tasks.CreateTask(task_pb2.CreateTaskRequest(task_id="t", task=task))
    execution = await all_of.tasks.ExecuteTask(
        task_pb2.ExecuteTaskRequest(name="tasks/t", variables=struct({"words": "4"}))
    )
    result = await ended(all_of, execution.name)
    assert result["prompt_version"] == "prompts/question/versions/1"
    assert len(str(result["text"]).split()) == 4
    assert await all_of.provenances(str(result["session"])) == [("prompts/role/versions/1", "")]
    session = await all_of.sessions.GetSession(session_pb2.GetSessionRequest(name=str(result["session"])))
    assert session.labels["prompt"] == "prompts/question/versions/1"


async def test_a_task_whose_prompt_cannot_be_filled_in_fails_and_says_why(all_of: Everything) -> None:
    await create(all_of.prompts, "question", "{{ topic }}")
    spec = task_pb2.ExecutionSpec(kind="prompt", payload=struct({"model": "demo", "prompt_from": "question"}))
    execution = await all_of.tasks.SubmitExecution(task_pb2.SubmitExecutionRequest(execution=spec))
    failed = await finished(all_of, execution.name)
    assert "variables.topic" in str(failed)


async def finished(all_of: Everything, name: str) -> task_pb2.Execution:
    """An execution once it has ended."""
    async with asyncio.timeout(40):
        async for _ in all_of.tasks.WatchExecution(task_pb2.WatchExecutionRequest(name=name)):
            pass
    execution: task_pb2.Execution = await all_of.tasks.GetExecution(task_pb2.GetExecutionRequest(name=name))
    return execution


async def ended(all_of: Everything, name: str) -> dict[str, Any]:
    return dict((await finished(all_of, name)).result)
