"""Prompts: versions, labels, what they become filled in, and what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1 import prompt_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.times import to_timestamp
from stationmaster_client.values import to_number, to_struct

APPEND = pb.CUSTOMIZATION_MODE_APPEND


class Prompts:
    """`prompts/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = prompt_pb2_grpc.PromptServiceStub(calls.channel)

    async def create(
        self,
        prompt_id: str,
        prompt: str | pb.Prompt,
        *,
        labels: Iterable[str] = (),
        message: str = "",
        validate_only: bool = False,
        request_id: str = "",
    ) -> pb.Prompt:
        """Create a prompt, from its template or with all its fields; `labels` point to its first version."""
        new = pb.Prompt(template=prompt) if isinstance(prompt, str) else prompt
        if message:
            new.message = message
        request = pb.CreatePromptRequest(
            prompt_id=prompt_id, prompt=new, labels=labels, validate_only=validate_only, request_id=request_id
        )
        return await self._calls.unary(self._stub.CreatePrompt, request)

    async def get(self, name: str, *, label: str = "", version: int = 0) -> pb.Prompt:
        """Return a prompt with the template of its newest version, or of another."""
        request = pb.GetPromptRequest(name=full("prompts", name))
        _aim(request, label, version)
        return await self._calls.unary(self._stub.GetPrompt, request)

    def list(self, **query: Unpack[Query]) -> Listing[pb.Prompt, pb.ListPromptsResponse]:
        """List the organization's prompts."""

        async def fetch(token: str) -> pb.ListPromptsResponse:
            return await self._calls.unary(self._stub.ListPrompts, pb.ListPromptsRequest(page_token=token, **query))

        return Listing(fetch, lambda page: page.prompts)

    async def update(
        self,
        prompt: pb.Prompt,
        paths: Iterable[str] = (),
        *,
        labels: Iterable[str] = (),
        validate_only: bool = False,
        request_id: str = "",
    ) -> pb.Prompt:
        """Change the fields named by `paths`, or all that are set; a new template is a new version, for `labels`."""
        mask = FieldMask(paths=paths)
        request = pb.UpdatePromptRequest(
            prompt=prompt,
            update_mask=mask if mask.paths else None,
            labels=labels,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.UpdatePrompt, request)

    async def delete(self, name: str, *, etag: str = "", force: bool = False, request_id: str = "") -> None:
        """Delete a prompt; with `force` even while others include it or an experiment runs on it."""
        request = pb.DeletePromptRequest(name=full("prompts", name), etag=etag, force=force, request_id=request_id)
        await self._calls.unary(self._stub.DeletePrompt, request)

    def versions(self, name: str, **query: Unpack[Query]) -> Listing[pb.PromptVersion, pb.ListPromptVersionsResponse]:
        """List the versions of a prompt, newest first."""

        async def fetch(token: str) -> pb.ListPromptVersionsResponse:
            request = pb.ListPromptVersionsRequest(parent=full("prompts", name), page_token=token, **query)
            return await self._calls.unary(self._stub.ListPromptVersions, request)

        return Listing(fetch, lambda page: page.versions)

    async def diff(self, name: str, from_version: int = 0, to_version: int = 0) -> pb.DiffPromptVersionsResponse:
        """Tell what changed to a version (0: the newest) from another (0: the one before it)."""
        request = pb.DiffPromptVersionsRequest(
            name=full("prompts", name), from_version=from_version, to_version=to_version
        )
        return await self._calls.unary(self._stub.DiffPromptVersions, request)

    async def label(self, name: str, label: str, version: int, *, etag: str = "", request_id: str = "") -> pb.Prompt:
        """Point a label to a version; 0 takes it away. The next render sees it."""
        request = pb.SetPromptLabelRequest(
            name=full("prompts", name), label=label, version=version, etag=etag, request_id=request_id
        )
        return await self._calls.unary(self._stub.SetPromptLabel, request)

    async def render(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        label: str = "",
        version: int = 0,
        context: Mapping[str, Any] | None = None,
        unit: str = "",
        agent: str = "",
        without_customization: bool = False,
    ) -> pb.RenderPromptResponse:
        """Fill a prompt in: the version asked for, or the one that its rules choose by `context`.

        `unit` is whom experiments tell apart; without it no experiment has a say.
        """
        request = pb.RenderPromptRequest(
            name=full("prompts", name),
            variables=to_struct(variables),
            context=to_struct(context),
            unit=unit,
            agent=full("agents", agent) if agent else "",
            without_customization=without_customization,
        )
        _aim(request, label, version)
        return await self._calls.unary(self._stub.RenderPrompt, request)

    async def select(
        self, name: str, context: Mapping[str, Any] | None = None, *, unit: str = ""
    ) -> pb.SelectPromptResponse:
        """Tell which version a render would take, and why."""
        request = pb.SelectPromptRequest(name=full("prompts", name), context=to_struct(context), unit=unit)
        return await self._calls.unary(self._stub.SelectPrompt, request)

    async def record(
        self,
        name: str,
        metric: pb.OutcomeMetric.ValueType | str,
        outcome: float,
        *,
        version: int = 0,
        label: str = "",
        experiment: str = "",
        unit: str = "",
        request_id: str = "",
    ) -> pb.RecordOutcomeResponse:
        """Note what came of a render; with an experiment and unit it counts for the variant that was given.

        `metric`: such as `"success"`. Raises ValueError for another word.
        """
        request = pb.RecordOutcomeRequest(
            name=full("prompts", name),
            metric=to_number(pb.OutcomeMetric, metric),
            outcome=outcome,
            version=version,
            label=label,
            experiment=full("experiments", experiment) if experiment else "",
            unit=unit,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.RecordOutcome, request)

    async def analytics(
        self, name: str, *, start: datetime | None = None, end: datetime | None = None, hourly: bool = False
    ) -> pb.GetPromptAnalyticsResponse:
        """Tell how a prompt did, by day or hour, version and label."""
        interval = pb.ANALYTICS_INTERVAL_HOUR if hourly else pb.ANALYTICS_INTERVAL_DAY
        request = pb.GetPromptAnalyticsRequest(
            name=full("prompts", name), start_time=to_timestamp(start), end_time=to_timestamp(end), interval=interval
        )
        return await self._calls.unary(self._stub.GetPromptAnalytics, request)

    async def customize(
        self,
        name: str,
        template: str = "",
        *,
        mode: pb.CustomizationMode.ValueType | str = APPEND,
        agent: str = "",
        variables: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> pb.PromptCustomization:
        """Add what you want of a prompt, for yourself, with one agent or with all; `mode`: such as `"prepend"`."""
        custom = pb.PromptCustomization(
            template=template,
            mode=to_number(pb.CustomizationMode, mode),
            agent=full("agents", agent) if agent else "",
            variables=to_struct(variables),
        )
        request = pb.CreatePromptCustomizationRequest(
            parent=full("prompts", name), customization=custom, request_id=request_id
        )
        return await self._calls.unary(self._stub.CreatePromptCustomization, request)

    async def customization(self, name: str) -> pb.PromptCustomization:
        """Return one of your customizations, by its full name."""
        request = pb.GetPromptCustomizationRequest(name=name)
        return await self._calls.unary(self._stub.GetPromptCustomization, request)

    def customizations(
        self, name: str, **query: Unpack[Query]
    ) -> Listing[pb.PromptCustomization, pb.ListPromptCustomizationsResponse]:
        """List your customizations of a prompt."""

        async def fetch(token: str) -> pb.ListPromptCustomizationsResponse:
            request = pb.ListPromptCustomizationsRequest(parent=full("prompts", name), page_token=token, **query)
            return await self._calls.unary(self._stub.ListPromptCustomizations, request)

        return Listing(fetch, lambda page: page.customizations)

    async def recustomize(
        self, customization: pb.PromptCustomization, paths: Iterable[str] = (), *, request_id: str = ""
    ) -> pb.PromptCustomization:
        """Change the fields of a customization named by `paths`, or all that are set."""
        mask = FieldMask(paths=paths)
        request = pb.UpdatePromptCustomizationRequest(
            customization=customization, update_mask=mask if mask.paths else None, request_id=request_id
        )
        return await self._calls.unary(self._stub.UpdatePromptCustomization, request)

    async def uncustomize(self, name: str, *, etag: str = "", request_id: str = "") -> None:
        """Delete one of your customizations, by its full name."""
        request = pb.DeletePromptCustomizationRequest(name=name, etag=etag, request_id=request_id)
        await self._calls.unary(self._stub.DeletePromptCustomization, request)


def _aim(request: pb.GetPromptRequest | pb.RenderPromptRequest, label: str, version: int) -> None:
    """Ask for the version of a label, or for a version, if one is given."""
    if label:
        request.label = label
    if version:
        request.version = version
