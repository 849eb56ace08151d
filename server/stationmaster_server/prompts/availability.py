"""Whether a prompt is there that somebody is about to rely on."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, PreconditionViolation, Reason
from stationmaster_server.prompts import store
from stationmaster_server.prompts.model import prompt_name
from stationmaster_server.prompts.reference import FORMS, Reference, parse


def reference_of(text: str, field: str) -> Reference:
    """The reference that a text is. Raises InvalidArgument."""
    reference = parse(text)
    if reference is None:
        raise InvalidArgument.field(field, f"{text[:100]!r} is no prompt: write {FORMS}")
    return reference


async def require(tx: Transaction, organization_id: UUID, text: str, field: str) -> None:
    """Raises InvalidArgument for what is no reference, FailedPrecondition(PROMPT_MISSING) for what is not there."""
    reference = reference_of(text, field)
    prompt = await store.get(tx, organization_id, reference.prompt_id)
    if prompt is None:
        why = f"there is no {prompt_name(reference.prompt_id)}"
    elif (version := prompt.version_of(reference.target)) is None:
        known = ", ".join(sorted(prompt.labels)) or "none"
        label = reference.target.label or prompt.usual_label
        why = f"{prompt_name(reference.prompt_id)} has no label {label!r}; it has {known}"
    elif version > prompt.latest_version:
        why = prompt.lack_of(version)
    else:
        return
    raise FailedPrecondition(
        Reason.PROMPT_MISSING, f"{field}: {why}", PreconditionViolation("PROMPT", prompt_name(reference.prompt_id), why)
    )
