"""References to prompts, as templates, agents and tasks write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stationmaster_server.prompts.model import Target

FORMS = "`id`, `id@label`, `id@version` or `prompts/id/versions/version`"
_REFERENCE = re.compile(
    r"(?:prompts/)?(?P<id>[a-z][a-z0-9-]{0,62})"
    r"(?:(?:@|/versions/)(?P<version>[1-9][0-9]{0,8})|@(?P<label>[a-z][a-z0-9_.-]{0,62}))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A prompt, and which version of it."""

    prompt_id: str
    target: Target

    def __str__(self) -> str:
        which = self.target.version or self.target.label
        return f"{self.prompt_id}@{which}" if which else self.prompt_id


def parse(text: str) -> Reference | None:
    """The reference that a text is; None when it is none."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return None
    return Reference(match["id"], Target(int(match["version"] or 0), match["label"] or ""))
