"""What holds of prompts, their versions and labels, and what is said where it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, NotFound, PreconditionViolation, Reason
from stationmaster_server.identity.roles import require_administrator
from stationmaster_server.prompts.model import LATEST, Prompt, Version, prompt_name, version_name


def found(prompt: Prompt | None, prompt_id: str) -> Prompt:
    """The prompt. Raises NotFound."""
    if prompt is None:
        raise NotFound("Prompt", prompt_name(prompt_id))
    return prompt


def found_version(version: Version | None, prompt_id: str, number: int) -> Version:
    """The version. Raises NotFound."""
    if version is None:
        raise NotFound("PromptVersion", version_name(prompt_id, number))
    return version


def no_label(prompt_id: str, label: str) -> NotFound:
    """The label does not point anywhere."""
    return NotFound("PromptLabel", f"{prompt_name(prompt_id)}@{label}")


def in_use(prompt_id: str, advice: str) -> FailedPrecondition:
    """The prompt is needed."""
    name = prompt_name(prompt_id)
    violation = PreconditionViolation("PROMPT", name, advice)
    return FailedPrecondition(Reason.PROMPT_IN_USE, f"{name} is in use: {advice}", violation)


def moved_label(prompt: Prompt, label: str, version: int) -> Prompt:
    """The prompt with its label elsewhere, or nowhere. Raises InvalidArgument, NotFound when it is nowhere already."""
    if label == LATEST:
        raise InvalidArgument.field("label", f"{LATEST!r} always stands for the newest version")
    labels = {name: number for name, number in prompt.labels.items() if name != label}
    if version:
        labels[label] = version
    elif label not in prompt.labels:
        raise no_label(prompt.prompt_id, label)
    return replace(prompt, labels=labels, etag=new_id().hex)


def require_mover(caller: Caller, prompt: Prompt, labels: Iterable[str]) -> None:
    """Refuse callers that may not move one of the labels, for it is protected."""
    protected = sorted(set(labels) & set(prompt.protected_labels))
    if protected:
        require_administrator(caller, f"move the protected label {protected[0]} of {prompt_name(prompt.prompt_id)}")
