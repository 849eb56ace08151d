"""Instructions that come from a prompt: filled in when a turn begins, so a label that moved counts from then on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import RuntimeFailure, Usage
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.prompts.availability import reference_of
from stationmaster_server.prompts.model import Rendered, RenderRequest, Selection


class Prompts(Protocol):
    """What fills prompts in; `prompts.rendering.Rendering` is the one there is."""

    async def render(self, tenant: Tenant, request: RenderRequest) -> Rendered:
        """A prompt filled in."""
        ...


class Record(Protocol):
    """Where it is noted what model calls used; `prompts.recording.Recorder` is the one there is."""

    def used(
        self,
        organization_id: UUID,
        selection: Selection,
        *,
        model_calls: int,
        input_tokens: int,
        output_tokens: int,
        cost_micros: int,
    ) -> None:
        """Model calls that were instructed by a version."""
        ...


@dataclass(frozen=True, slots=True)
class Instructed:
    """Instructions, and where they came from."""

    text: str
    version: str
    variant: str
    """Of an experiment: `experiments/{experiment}/{variant}`."""
    selection: Selection


class Instructions:
    """Fills the prompts of specifications in."""

    def __init__(self, prompts: Prompts, record: Record) -> None:
        self._prompts = prompts
        self._record = record

    async def of(self, tenant: Tenant, spec: AgentSpec, agent_id: str, session_id: UUID) -> Instructed:
        """What a specification with a prompt tells the model. Experiments tell sessions apart.

        Raises RuntimeFailure when the prompt cannot be filled in.
        """
        try:
            reference = reference_of(spec.prompt, "spec.prompt")
            request = RenderRequest(
                reference.prompt_id,
                reference.target,
                variables=json.loads(spec.prompt_variables),
                unit=f"sessions/{session_id}",
                agent_id=agent_id,
            )
            rendered = await self._prompts.render(tenant, request)
        except StationmasterError as error:
            text = f"the prompt {spec.prompt} cannot be filled in: {error.message}"
            raise RuntimeFailure(error.reason.value, text, retryable=isinstance(error, Unavailable)) from error
        selection = rendered.selection
        variant = f"experiments/{selection.experiment_id}/{selection.variant}" if selection.experiment_id else ""
        return Instructed(rendered.text, selection.version_name, variant, selection)

    def used(self, tenant: Tenant, instructed: Instructed, usage: Usage) -> None:
        """Note what model calls used."""
        self._record.used(
            tenant.organization_id,
            instructed.selection,
            model_calls=usage.model_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_micros=usage.cost_micros,
        )
