"""PromptService: messages in, the services, messages out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1 import prompt_pb2_grpc

from stationmaster_server.prompts import convert
from stationmaster_server.prompts import convert_experiments as convert_more
from stationmaster_server.prompts.analytics import Analytics
from stationmaster_server.prompts.comparing import Comparing
from stationmaster_server.prompts.customizations import UPDATABLE, Customizations
from stationmaster_server.prompts.experiments import Experiments
from stationmaster_server.prompts.outcomes import Outcomes
from stationmaster_server.prompts.rendering import Rendering
from stationmaster_server.prompts.results import ExperimentResults
from stationmaster_server.prompts.service import PromptService
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import mapping, masked, moment
from stationmaster_server.wire.names import parse_pair
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class PromptServices:
    """What the servicer calls."""

    prompts: PromptService
    comparing: Comparing
    rendering: Rendering
    customizations: Customizations
    experiments: Experiments
    results: ExperimentResults
    outcomes: Outcomes
    analytics: Analytics


class PromptServicer(prompt_pb2_grpc.PromptServiceServicer):
    """The methods of PromptService."""

    def __init__(self, services: PromptServices, tokens: PageTokens) -> None:
        self._prompts = services.prompts
        self._comparing = services.comparing
        self._rendering = services.rendering
        self._customizations = services.customizations
        self._experiments = services.experiments
        self._results = services.results
        self._outcomes = services.outcomes
        self._analytics = services.analytics
        self._tokens = tokens

    async def CreatePrompt(self, request: pb.CreatePromptRequest, context: Context) -> pb.Prompt:
        """A new prompt."""
        new = convert.new_prompt(request.prompt_id, request.prompt, tuple(request.labels))
        made = await self._prompts.create(caller_of(request), new, validate_only=request.validate_only)
        return convert.prompt_to_proto(made)

    async def GetPrompt(self, request: pb.GetPromptRequest, context: Context) -> pb.Prompt:
        """One prompt."""
        prompt_id = convert.prompt_id_of(request.name)
        return convert.prompt_to_proto(await self._prompts.get(current_caller(), prompt_id, convert.target_of(request)))

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: Context) -> pb.ListPromptsResponse:
        """A page of prompts."""
        asked = self._tokens.read(request)
        page = await self._prompts.list(current_caller(), request.filter, request.order_by, asked)
        prompts, token = self._tokens.page(request, page, convert.prompt_to_proto)
        return pb.ListPromptsResponse(prompts=prompts, next_page_token=token)

    async def UpdatePrompt(self, request: pb.UpdatePromptRequest, context: Context) -> pb.Prompt:
        """A prompt changed."""
        prompt_id = convert.prompt_id_of(request.prompt.name, "prompt.name")
        changed = await self._prompts.update(
            caller_of(request),
            prompt_id,
            convert.prompt_changes(request.prompt, masked(request, convert.MASKED)),
            tuple(request.labels),
            request.prompt.etag,
            validate_only=request.validate_only,
        )
        return convert.prompt_to_proto(changed)

    async def DeletePrompt(self, request: pb.DeletePromptRequest, context: Context) -> Empty:
        """A prompt deleted."""
        prompt_id = convert.prompt_id_of(request.name)
        await self._prompts.delete(caller_of(request), prompt_id, request.etag, force=request.force)
        return Empty()

    async def ListPromptVersions(
        self, request: pb.ListPromptVersionsRequest, context: Context
    ) -> pb.ListPromptVersionsResponse:
        """A page of versions."""
        asked, prompt_id = self._tokens.read(request), convert.prompt_id_of(request.parent, "parent")
        page = await self._prompts.versions(current_caller(), prompt_id, request.filter, request.order_by, asked)
        versions, token = self._tokens.page(request, page, convert.version_to_proto)
        return pb.ListPromptVersionsResponse(versions=versions, next_page_token=token)

    async def DiffPromptVersions(
        self, request: pb.DiffPromptVersionsRequest, context: Context
    ) -> pb.DiffPromptVersionsResponse:
        """What changed."""
        difference = await self._comparing.difference(
            current_caller(), convert.prompt_id_of(request.name), request.from_version, request.to_version
        )
        return convert.difference_to_proto(difference)

    async def SetPromptLabel(self, request: pb.SetPromptLabelRequest, context: Context) -> pb.Prompt:
        """A label moved."""
        prompt_id = convert.prompt_id_of(request.name)
        changed = await self._prompts.set_label(
            caller_of(request), prompt_id, request.label, request.version, request.etag
        )
        return convert.prompt_to_proto(changed)

    async def RenderPrompt(self, request: pb.RenderPromptRequest, context: Context) -> pb.RenderPromptResponse:
        """A prompt filled in."""
        rendered = await self._rendering.render(current_caller().tenant, convert.render_request(request))
        return convert.rendered_to_proto(rendered)

    async def SelectPrompt(self, request: pb.SelectPromptRequest, context: Context) -> pb.SelectPromptResponse:
        """Which version it would be."""
        selection, tried = await self._rendering.select(
            current_caller().tenant,
            convert.prompt_id_of(request.name),
            mapping(request.context, "context"),
            request.unit,
        )
        return pb.SelectPromptResponse(
            selection=convert.selection_to_proto(selection), rules=map(convert.tried_to_proto, tried)
        )

    async def CreatePromptCustomization(
        self, request: pb.CreatePromptCustomizationRequest, context: Context
    ) -> pb.PromptCustomization:
        """A new customization."""
        prompt_id = convert.prompt_id_of(request.parent, "parent")
        new = convert.new_customization(prompt_id, request.customization)
        return convert.customization_to_proto(await self._customizations.create(caller_of(request), new))

    async def GetPromptCustomization(
        self, request: pb.GetPromptCustomizationRequest, context: Context
    ) -> pb.PromptCustomization:
        """One customization."""
        prompt_id, customization_id = parse_pair(convert.CUSTOMIZATION, request.name, str, UUID)
        one = await self._customizations.get(current_caller(), prompt_id, customization_id)
        return convert.customization_to_proto(one)

    async def ListPromptCustomizations(
        self, request: pb.ListPromptCustomizationsRequest, context: Context
    ) -> pb.ListPromptCustomizationsResponse:
        """A page of customizations."""
        asked, prompt_id = self._tokens.read(request), convert.prompt_id_of(request.parent, "parent")
        page = await self._customizations.list(current_caller(), prompt_id, request.filter, request.order_by, asked)
        customizations, token = self._tokens.page(request, page, convert.customization_to_proto)
        return pb.ListPromptCustomizationsResponse(customizations=customizations, next_page_token=token)

    async def UpdatePromptCustomization(
        self, request: pb.UpdatePromptCustomizationRequest, context: Context
    ) -> pb.PromptCustomization:
        """A customization changed."""
        name = request.customization.name
        prompt_id, customization_id = parse_pair(convert.CUSTOMIZATION, name, str, UUID, field="customization.name")
        changes = convert.customization_changes(request.customization, masked(request, UPDATABLE))
        etag = request.customization.etag
        changed = await self._customizations.update(caller_of(request), prompt_id, customization_id, changes, etag)
        return convert.customization_to_proto(changed)

    async def DeletePromptCustomization(self, request: pb.DeletePromptCustomizationRequest, context: Context) -> Empty:
        """A customization deleted."""
        prompt_id, customization_id = parse_pair(convert.CUSTOMIZATION, request.name, str, UUID)
        await self._customizations.delete(caller_of(request), prompt_id, customization_id, request.etag)
        return Empty()

    async def RecordOutcome(self, request: pb.RecordOutcomeRequest, context: Context) -> pb.RecordOutcomeResponse:
        """What came of a render."""
        prompt_id = convert.prompt_id_of(request.name)
        noted = await self._outcomes.record(caller_of(request), prompt_id, convert_more.outcome_from_proto(request))
        return convert_more.noted_to_proto(noted)

    async def GetPromptAnalytics(
        self, request: pb.GetPromptAnalyticsRequest, context: Context
    ) -> pb.GetPromptAnalyticsResponse:
        """How a prompt did."""
        points, totals = await self._analytics.of(
            current_caller(),
            convert.prompt_id_of(request.name),
            moment(request, "start_time"),
            moment(request, "end_time"),
            convert_more.interval_of(request.interval),
        )
        return pb.GetPromptAnalyticsResponse(
            points=map(convert_more.point_to_proto, points), totals=map(convert_more.point_to_proto, totals)
        )

    async def CreateExperiment(self, request: pb.CreateExperimentRequest, context: Context) -> pb.Experiment:
        """A new experiment."""
        new = convert_more.new_experiment(request.experiment)
        return convert_more.experiment_to_proto(await self._experiments.create(caller_of(request), new))

    async def GetExperiment(self, request: pb.GetExperimentRequest, context: Context) -> pb.Experiment:
        """One experiment."""
        experiment_id = convert_more.experiment_id_of(request.name)
        return convert_more.experiment_to_proto(await self._experiments.get(current_caller(), experiment_id))

    async def ListExperiments(self, request: pb.ListExperimentsRequest, context: Context) -> pb.ListExperimentsResponse:
        """A page of experiments."""
        asked = self._tokens.read(request)
        page = await self._experiments.list(current_caller(), request.filter, request.order_by, asked)
        experiments, token = self._tokens.page(request, page, convert_more.experiment_to_proto)
        return pb.ListExperimentsResponse(experiments=experiments, next_page_token=token)

    async def StartExperiment(self, request: pb.StartExperimentRequest, context: Context) -> pb.Experiment:
        """An experiment started."""
        experiment_id = convert_more.experiment_id_of(request.name)
        started = await self._experiments.start(caller_of(request), experiment_id)
        return convert_more.experiment_to_proto(started)

    async def StopExperiment(self, request: pb.StopExperimentRequest, context: Context) -> pb.Experiment:
        """An experiment stopped."""
        experiment_id = convert_more.experiment_id_of(request.name)
        stopped = await self._experiments.stop(caller_of(request), experiment_id, request.reason)
        return convert_more.experiment_to_proto(stopped)

    async def ConcludeExperiment(self, request: pb.ConcludeExperimentRequest, context: Context) -> pb.Experiment:
        """An experiment ended."""
        experiment_id = convert_more.experiment_id_of(request.name)
        concluded = await self._experiments.conclude(caller_of(request), experiment_id, request.winner)
        return convert_more.experiment_to_proto(concluded)

    async def GetExperimentResults(
        self, request: pb.GetExperimentResultsRequest, context: Context
    ) -> pb.GetExperimentResultsResponse:
        """What it has shown."""
        results = await self._results.of(current_caller(), convert_more.experiment_id_of(request.name))
        return convert_more.results_to_proto(results)
