"""Prompts, versions, customizations and selections: protobuf to model and back."""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stationmaster.v1 import prompt_pb2 as pb

from stationmaster_server.prompts.comparing import Change, Difference
from stationmaster_server.prompts.model import (
    Customization,
    CustomizationMode,
    NewPrompt,
    Prompt,
    Rendered,
    RenderRequest,
    Rule,
    RuleOutcome,
    Selection,
    SelectionReason,
    Target,
    Version,
    customization_name,
    prompt_name,
    version_name,
)
from stationmaster_server.wire.fields import mapping, struct, timestamp
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.variables import variable_from_proto, variable_to_proto

PROMPT = "prompts/{prompt}"
CUSTOMIZATION = "prompts/{prompt}/customizations/{customization}"
_NOBODY = UUID(int=0)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)

_MODES = {
    pb.CUSTOMIZATION_MODE_UNSPECIFIED: CustomizationMode.APPEND,
    pb.CUSTOMIZATION_MODE_APPEND: CustomizationMode.APPEND,
    pb.CUSTOMIZATION_MODE_PREPEND: CustomizationMode.PREPEND,
    pb.CUSTOMIZATION_MODE_REPLACE: CustomizationMode.REPLACE,
}
# The last number that stands for a value wins: never the unspecified one.
_MODE_NUMBERS = {mode: number for number, mode in _MODES.items()}
_REASONS = {reason: pb.SelectionReason.Value(f"SELECTION_REASON_{reason}") for reason in SelectionReason}
_CHANGES = {change: pb.DiffLineKind.Value(f"DIFF_LINE_KIND_{change}") for change in Change}
_PLAIN = ("display_name", "description", "template", "message", "default_label")
MASKED = frozenset({*_PLAIN, "tags", "variables", "protected_labels", "context_attributes", "rules"})
"""What an update mask may name."""


def prompt_id_of(name: str, field: str = "name") -> str:
    """The id in a prompt's name. Raises InvalidArgument(INVALID_NAME)."""
    return parse(PROMPT, name, str, field=field)


def new_prompt(prompt_id: str, message: pb.Prompt, labels: tuple[str, ...]) -> NewPrompt:
    """What a prompt is to be made of."""
    return NewPrompt(prompt_id, labels=labels, **prompt_changes(message, MASKED))


def prompt_changes(message: pb.Prompt, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `NewPrompt`."""
    changes: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN if name in fields}
    changes |= {name: tuple(getattr(message, name)) for name in ("tags", "protected_labels") if name in fields}
    if "variables" in fields:
        changes["variables"] = tuple(variable_from_proto(one, "prompt.variables") for one in message.variables)
    if "context_attributes" in fields:
        declared = message.context_attributes
        changes["attributes"] = tuple(variable_from_proto(one, "prompt.context_attributes") for one in declared)
    if "rules" in fields:
        changes["rules"] = tuple(_rule(one) for one in message.rules)
    return changes


def _rule(message: pb.PromptRule) -> Rule:
    return Rule(message.condition, message.priority, message.label, message.version, message.description)


def prompt_to_proto(prompt: Prompt) -> pb.Prompt:
    """A prompt as its message."""
    shown = prompt.shown
    return pb.Prompt(
        name=prompt_name(prompt.prompt_id),
        uid=str(prompt.uid),
        display_name=prompt.display_name,
        description=prompt.description,
        tags=prompt.tags,
        template=shown.template,
        variables=[variable_to_proto(variable) for variable in shown.variables],
        version=shown.version,
        message=shown.message,
        author=f"users/{shown.author_id}",
        latest_version=prompt.latest_version,
        labels=prompt.labels,
        protected_labels=prompt.protected_labels,
        default_label=prompt.default_label,
        context_attributes=[variable_to_proto(variable) for variable in prompt.attributes],
        rules=[_rule_to_proto(rule) for rule in prompt.rules],
        etag=prompt.etag,
        create_time=timestamp(prompt.created_at),
        update_time=timestamp(prompt.updated_at),
        includes=shown.includes,
    )


def _rule_to_proto(rule: Rule) -> pb.PromptRule:
    message = pb.PromptRule(condition=rule.condition, priority=rule.priority, description=rule.description)
    if rule.version:
        message.version = rule.version
    else:
        message.label = rule.label
    return message


def version_to_proto(version: Version) -> pb.PromptVersion:
    """A version as its message."""
    return pb.PromptVersion(
        name=version_name(version.prompt_id, version.version),
        version=version.version,
        template=version.template,
        variables=[variable_to_proto(variable) for variable in version.variables],
        message=version.message,
        author=f"users/{version.author_id}",
        labels=version.labels,
        includes=version.includes,
        create_time=timestamp(version.created_at),
    )


def difference_to_proto(difference: Difference) -> pb.DiffPromptVersionsResponse:
    """A difference as its message."""
    return pb.DiffPromptVersionsResponse(
        from_version=difference.old,
        to_version=difference.new,
        lines=[
            pb.DiffLine(kind=_CHANGES[line.change], text=line.text, from_line=line.old, to_line=line.new)
            for line in difference.lines
        ],
        variables=[
            pb.VariableChange(
                variable=next(each.name for each in (old, new) if each is not None),
                before=variable_to_proto(old) if old else None,
                after=variable_to_proto(new) if new else None,
            )
            for old, new in difference.variables
        ],
    )


def render_request(message: pb.RenderPromptRequest) -> RenderRequest:
    """What is to be filled in."""
    return RenderRequest(
        prompt_id=prompt_id_of(message.name),
        target=target_of(message),
        variables=mapping(message.variables, "variables"),
        context=mapping(message.context, "context"),
        unit=message.unit,
        agent_id=message.agent.removeprefix("agents/"),
        customized=not message.without_customization,
    )


def target_of(message: pb.RenderPromptRequest | pb.GetPromptRequest) -> Target:
    """Which version is asked for."""
    return Target(message.version, message.label)


def rendered_to_proto(rendered: Rendered) -> pb.RenderPromptResponse:
    """A prompt filled in, as its message."""
    selection, custom = rendered.selection, rendered.customization_id
    return pb.RenderPromptResponse(
        text=rendered.text,
        selection=selection_to_proto(selection),
        customization=customization_name(selection.prompt_id, custom) if custom else "",
    )


def selection_to_proto(selection: Selection) -> pb.PromptSelection:
    """A selection as its message."""
    return pb.PromptSelection(
        prompt_version=selection.version_name,
        label=selection.label,
        reason=_REASONS[selection.reason],
        rule=selection.rule,
        experiment=f"experiments/{selection.experiment_id}" if selection.experiment_id else "",
        variant=selection.variant,
    )


def tried_to_proto(outcome: RuleOutcome) -> pb.RuleOutcome:
    """How a rule fared, as its message."""
    return pb.RuleOutcome(rule=outcome.rule, matched=outcome.matched, error=outcome.error)


def new_customization(prompt_id: str, message: pb.PromptCustomization) -> Customization:
    """What is to be added; the service sets whose it is."""
    return Customization(
        id=_NOBODY,
        prompt_id=prompt_id,
        user_id=_NOBODY,
        agent_id=message.agent.removeprefix("agents/"),
        template=message.template,
        mode=_MODES[message.mode],
        variables=mapping(message.variables, "customization.variables"),
        disabled=message.disabled,
        etag="",
        created_at=_NEVER,
        updated_at=_NEVER,
    )


def customization_changes(message: pb.PromptCustomization, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `Customization`."""
    changes: dict[str, Any] = {name: getattr(message, name) for name in ("template", "disabled") if name in fields}
    if "mode" in fields:
        changes["mode"] = _MODES[message.mode]
    if "variables" in fields:
        changes["variables"] = mapping(message.variables, "customization.variables")
    return changes


def customization_to_proto(one: Customization) -> pb.PromptCustomization:
    """A customization as its message."""
    return pb.PromptCustomization(
        name=customization_name(one.prompt_id, one.id),
        user=f"users/{one.user_id}",
        agent=f"agents/{one.agent_id}" if one.agent_id else "",
        template=one.template,
        mode=_MODE_NUMBERS[one.mode],
        variables=struct(one.variables),
        disabled=one.disabled,
        etag=one.etag,
        create_time=timestamp(one.created_at),
        update_time=timestamp(one.updated_at),
    )
