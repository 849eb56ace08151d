"""Prompts made in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct
from stationmaster.v1 import identity_pb2
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub

from tests.fixtures.server import RunningServer

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub

VARIANTS = (("control", 1), ("treatment", 2))


def struct(values: dict[str, Any]) -> Struct:
    """A JSON object as a Struct."""
    message = Struct()
    message.update(values)
    return message


async def create(
    prompts: PromptServiceAsyncStub, prompt_id: str, template: str, *labels: str, **fields: Any
) -> pb.Prompt:
    """A new prompt, its labels on the first version."""
    prompt = pb.Prompt(template=template, **fields)
    return await prompts.CreatePrompt(pb.CreatePromptRequest(prompt_id=prompt_id, prompt=prompt, labels=labels))


async def revise(
    prompts: PromptServiceAsyncStub, prompt_id: str, template: str, *labels: str, **fields: Any
) -> pb.Prompt:
    """A new version of a prompt, with these labels moved to it."""
    prompt = pb.Prompt(name=f"prompts/{prompt_id}", template=template, **fields)
    return await prompts.UpdatePrompt(pb.UpdatePromptRequest(prompt=prompt, labels=labels))


async def label(prompts: PromptServiceAsyncStub, prompt_id: str, name: str, version: int) -> pb.Prompt:
    """A label moved."""
    return await prompts.SetPromptLabel(
        pb.SetPromptLabelRequest(name=f"prompts/{prompt_id}", label=name, version=version)
    )


async def render(
    prompts: PromptServiceAsyncStub, prompt_id: str, variables: dict[str, Any] | None = None, **fields: Any
) -> pb.RenderPromptResponse:
    """A prompt filled in."""
    if "context" in fields:
        fields["context"] = struct(fields["context"])
    request = pb.RenderPromptRequest(name=f"prompts/{prompt_id}", variables=struct(variables or {}), **fields)
    return await prompts.RenderPrompt(request)


async def member_key(server: RunningServer, role: identity_pb2.Role.ValueType = identity_pb2.ROLE_MEMBER) -> str:
    """The key of a new user of the administrator's organization."""
    async with server.channel() as channel:
        identity = IdentityServiceStub(channel)
        user = await identity.CreateUser(
            identity_pb2.CreateUserRequest(user=identity_pb2.User(display_name="Another", role=role))
        )
        made = await identity.CreateApiKey(
            identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=user.name))
        )
    return made.secret


async def experiment(prompts: PromptServiceAsyncStub, prompt_id: str = "p", **fields: Any) -> pb.Experiment:
    """An experiment of the prompt's versions."""
    if "variants" not in fields:
        fields["variants"] = [pb.ExperimentVariant(variant=name, version=version) for name, version in VARIANTS]
    new = pb.Experiment(prompt=f"prompts/{prompt_id}", **fields)
    return await prompts.CreateExperiment(pb.CreateExperimentRequest(experiment=new))


async def started(prompts: PromptServiceAsyncStub, prompt_id: str = "p", **fields: Any) -> pb.Experiment:
    """One that runs."""
    made = await experiment(prompts, prompt_id, **fields)
    return await prompts.StartExperiment(pb.StartExperimentRequest(name=made.name))


async def note(
    prompts: PromptServiceAsyncStub, running: pb.Experiment, unit: str, outcome: float, **fields: Any
) -> pb.RecordOutcomeResponse:
    """An outcome of a unit."""
    fields.setdefault("metric", pb.OUTCOME_METRIC_SUCCESS)
    return await prompts.RecordOutcome(
        pb.RecordOutcomeRequest(name=running.prompt, experiment=running.name, unit=unit, outcome=outcome, **fields)
    )


async def results(prompts: PromptServiceAsyncStub, running: pb.Experiment) -> pb.GetExperimentResultsResponse:
    """What it has shown."""
    return await prompts.GetExperimentResults(pb.GetExperimentResultsRequest(name=running.name))
