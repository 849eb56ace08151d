"""Templates that are filled in at once or refused: short texts that also a transaction may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stationmaster_server.templating import engine
from stationmaster_server.templating.model import Fault, Outline
from stationmaster_server.templating.templates import is_little, size_of

_TOO_HARD = Fault("only values, conditions and simple filters fit here: no loops, calls or arithmetic")
_TOO_LARGE = Fault("the variables are too large to be filled in here")


def examine(text: str) -> Outline | Fault:
    """What a template uses, or why it is none, or none that fits here."""
    if not engine.is_short(text):
        return _TOO_HARD
    try:
        outline = engine.outline(text)
    except engine.Faulty as error:
        return error.fault
    return outline if outline.linear else _TOO_HARD


def fill(text: str, values: Mapping[str, Any]) -> str | Fault:
    """A template filled in within some milliseconds, or why it cannot be."""
    outline = examine(text)
    if isinstance(outline, Fault):
        return outline
    if not is_little(outline, size_of(values)):
        return _TOO_LARGE
    try:
        return engine.fill(text, values)
    except engine.Faulty as error:
        return error.fault
