"""Arguments that a model gives a call: what is no JSON object is kept as the text that it is."""

from __future__ import annotations

import json
from typing import Any

INVALID_JSON = "INVALID_JSON"
"""The only argument of a call whose arguments are no JSON object: their text. The model layer calls it so too."""


def json_only(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, if they are JSON: lenient readers let NaN, infinities and halves of characters pass."""
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return {INVALID_JSON: json.dumps(arguments)}
    return arguments
