"""Prompts chosen and filled in: what every render goes through. Nothing here asks the database twice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import InvalidArgument, NotFound
from stationmaster_server.prompts.assignment import assign
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.heads import Filled, Head, Heads
from stationmaster_server.prompts.model import (
    Customization,
    CustomizationMode,
    Rendered,
    RenderRequest,
    RuleOutcome,
    Selection,
    SelectionReason,
    Target,
    prompt_name,
)
from stationmaster_server.prompts.recording import Recorder
from stationmaster_server.prompts.rules import found_version, no_label
from stationmaster_server.prompts.selection import choose, context_fault
from stationmaster_server.templating.templates import Ready, Templates
from stationmaster_server.templating.variables import check_values


class Rendering:
    """Chooses versions and fills them in."""

    def __init__(self, heads: Heads, expanding: Expanding, templates: Templates, recorder: Recorder) -> None:
        self._heads = heads
        self._expanding = expanding
        self._templates = templates
        self._recorder = recorder

    async def render(self, tenant: Tenant, request: RenderRequest) -> Rendered:
        """A prompt filled in.

        Raises NotFound, InvalidArgument, FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING), ResourceExhausted.
        """
        began = time.perf_counter()
        head = await self._head(tenant, request.prompt_id)
        number = request.target.version
        if number > head.prompt.latest_version:  # unless it is brand-new, nothing is to be counted of it
            found_version(await self._heads.version(tenant, head, number), request.prompt_id, number)
        selection, _ = select(head, request.target, request.context, request.unit)
        failed = True
        try:
            rendered = await self._render(tenant, head, selection, request)
            failed = False
            return rendered
        finally:
            took = time.perf_counter() - began
            self._recorder.rendered(tenant.organization_id, selection, took, request.unit, failed=failed)

    async def select(
        self, tenant: Tenant, prompt_id: str, context: Mapping[str, Any], unit: str
    ) -> tuple[Selection, list[RuleOutcome]]:
        """Which version a render would take, and how the rules fared. Raises NotFound, InvalidArgument."""
        head = await self._head(tenant, prompt_id)
        return select(head, Target(), context, unit)

    async def _head(self, tenant: Tenant, prompt_id: str) -> Head:
        head = self._heads.kept(tenant.organization_id, prompt_id) or await self._heads.get(tenant, prompt_id)
        if head is None:
            raise NotFound("Prompt", prompt_name(prompt_id))
        return head

    async def _render(self, tenant: Tenant, head: Head, selection: Selection, request: RenderRequest) -> Rendered:
        filled = head.filled.get(selection.version)
        if filled is None:
            version = await self._heads.version(tenant, head, selection.version)
            filled = await self._expanding.filled(
                tenant, head, found_version(version, request.prompt_id, selection.version)
            )
        ready, given, custom = filled.ready, request.variables, None
        if request.customized:
            custom = await self._customization(tenant, head, request.agent_id)
        if custom is not None:
            ready = self._composed(tenant, head, filled, custom)
            declared = {variable.name for variable in filled.variables}
            given = {name: value for name, value in custom.variables.items() if name in declared} | dict(given)
        values = check_values(filled.variables, given)
        for name in filled.absent - given.keys():
            del values[name]
        text = await self._templates.fill_ready(ready, values, "template")
        return Rendered(text, selection, custom.id if custom is not None else None)

    async def _customization(self, tenant: Tenant, head: Head, agent_id: str) -> Customization | None:
        known = head.customizations.get(tenant.user_id)
        if known is None:
            known = await self._heads.customizations(tenant, head)
        if not known:
            return None
        return known.get(agent_id) or known.get("")

    def _composed(self, tenant: Tenant, head: Head, filled: Filled, custom: Customization) -> Ready:
        """The version and the customization as one template."""
        if not custom.template:
            return filled.ready
        known = head.composed.get(custom.id)
        if known is not None and known[0] is filled:
            return known[1]
        match custom.mode:
            case CustomizationMode.APPEND:
                text = f"{filled.ready.text}\n\n{custom.template}"
            case CustomizationMode.PREPEND:
                text = f"{custom.template}\n\n{filled.ready.text}"
            case CustomizationMode.REPLACE:
                text = custom.template
        ready = Ready.of(text)
        head.composed[custom.id] = (filled, ready)
        self._heads.grew(tenant.organization_id, head, ready)
        return ready


def select(head: Head, target: Target, context: Mapping[str, Any], unit: str) -> tuple[Selection, list[RuleOutcome]]:
    """Which version is taken, and how the rules fared. Raises NotFound(label), InvalidArgument(context)."""
    prompt = head.prompt
    if target.version:
        return Selection(prompt.prompt_id, prompt.uid, target.version, "", SelectionReason.VERSION), []
    if target.label:
        return _labelled(head, target.label, SelectionReason.LABEL, unit), []
    tried: list[RuleOutcome] = []
    if prompt.rules or context:
        if fault := context_fault(context):
            raise InvalidArgument.field("context", fault)
        values = check_values(prompt.attributes, context, "context")
        chosen, tried = choose(head.rules, values)
        if chosen is not None:
            place, rule = chosen
            if rule.version:
                return Selection(prompt.prompt_id, prompt.uid, rule.version, "", SelectionReason.RULE, place), tried
            return _labelled(head, rule.label, SelectionReason.RULE, unit, place), tried
    return _labelled(head, prompt.usual_label, SelectionReason.DEFAULT, unit), tried


def _labelled(head: Head, label: str, reason: SelectionReason, unit: str, rule: int = 0) -> Selection:
    prompt = head.prompt
    version = prompt.labelled(label)
    if version is None:
        raise no_label(prompt.prompt_id, label)
    for experiment in head.experiments if unit else ():
        if experiment.label == label and (variant := assign(experiment, unit)) is not None:
            reason = SelectionReason.EXPERIMENT
            ids = experiment.id, variant.variant_id
            return Selection(prompt.prompt_id, prompt.uid, variant.version, label, reason, rule, *ids)
    return Selection(prompt.prompt_id, prompt.uid, version, label, reason, rule)
