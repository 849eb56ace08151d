"""Prompts, their versions, labels, rules and customizations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from stationmaster_server.templating.model import Variable

PRODUCTION = "production"
"""The label that is taken where nothing else is said, if the prompt has it."""
LATEST = "latest"
"""Stands for the newest version wherever a label does; nobody can set it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which version is taken when a condition in CEL holds: that of a label, or a version."""

    condition: str
    priority: int = 0
    label: str = ""
    version: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable version. `includes` are references as the template has them."""

    prompt_id: str
    version: int
    template: str
    variables: tuple[Variable, ...]
    includes: tuple[str, ...]
    message: str
    author_id: UUID
    created_at: datetime
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with one of its versions. `etag` changes with every change, also of labels."""

    prompt_id: str
    uid: UUID
    display_name: str
    description: str
    tags: tuple[str, ...]
    protected_labels: tuple[str, ...]
    default_label: str
    attributes: tuple[Variable, ...]
    rules: tuple[Rule, ...]
    latest_version: int
    labels: Mapping[str, int]
    etag: str
    created_at: datetime
    updated_at: datetime
    shown: Version

    @property
    def usual_label(self) -> str:
        """The label that is taken where nothing else is said."""
        return self.default_label or (PRODUCTION if PRODUCTION in self.labels else LATEST)

    def labelled(self, label: str) -> int | None:
        """The version that a label points to; None when it is not there."""
        return self.latest_version if label == LATEST else self.labels.get(label)

    def version_of(self, target: Target, otherwise: str = "") -> int | None:
        """The version that is wanted, by number or label; `otherwise`: the label where neither is said."""
        return target.version or self.labelled(target.label or otherwise or self.usual_label)

    def lack_of(self, version: int) -> str:
        """What to tell of a version that is past the newest."""
        return f"there is no version {version} of prompts/{self.prompt_id}: the newest is {self.latest_version}"


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """What a prompt is made of, or what it becomes. `labels` point to the version that is made."""

    prompt_id: str
    template: str = ""
    variables: tuple[Variable, ...] = ()
    message: str = ""
    display_name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    protected_labels: tuple[str, ...] = ()
    default_label: str = ""
    attributes: tuple[Variable, ...] = ()
    rules: tuple[Rule, ...] = ()
    labels: tuple[str, ...] = ()


class CustomizationMode(StrEnum):
    """Where the text of a customization goes."""

    APPEND = "APPEND"
    PREPEND = "PREPEND"
    REPLACE = "REPLACE"


@dataclass(frozen=True, slots=True)
class Customization:
    """What a user wants of a prompt, with one agent or (`agent_id` empty) with all."""

    id: UUID
    prompt_id: str
    user_id: UUID
    agent_id: str
    template: str
    mode: CustomizationMode
    variables: Mapping[str, Any]
    disabled: bool
    etag: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """Which version is wanted: a version, else the one of a label, else what the rules choose."""

    version: int = 0
    label: str = ""


class SelectionReason(StrEnum):
    """Why a version is taken."""

    VERSION = "VERSION"
    LABEL = "LABEL"
    RULE = "RULE"
    DEFAULT = "DEFAULT"
    EXPERIMENT = "EXPERIMENT"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which version is taken, and why. `rule` is the place of the rule that matched."""

    prompt_id: str
    prompt_uid: UUID
    version: int
    label: str
    reason: SelectionReason
    rule: int = 0
    experiment_id: UUID | None = None
    variant: str = ""

    @property
    def version_name(self) -> str:
        """`prompts/{prompt}/versions/{version}`."""
        return version_name(self.prompt_id, self.version)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """How a rule that was tried fared; `error`: why its condition failed."""

    rule: int
    matched: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What is to be filled in, and for whom."""

    prompt_id: str
    target: Target = field(default_factory=Target)
    variables: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    agent_id: str = ""
    customized: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt filled in, and what it was made of."""

    text: str
    selection: Selection
    customization_id: UUID | None = None


def prompt_name(prompt_id: str) -> str:
    """`prompts/{prompt}`."""
    return f"prompts/{prompt_id}"


def version_name(prompt_id: str, version: int) -> str:
    """`prompts/{prompt}/versions/{version}`."""
    return f"prompts/{prompt_id}/versions/{version}"


def customization_name(prompt_id: str, customization_id: UUID) -> str:
    """`prompts/{prompt}/customizations/{customization}`."""
    return f"prompts/{prompt_id}/customizations/{customization_id}"
