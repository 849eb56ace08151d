"""Ordinary words that the demo model understands, by simple rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

HELP = (
    "I am the demo model: I need no network and no key, and I answer the same to the same message. "
    'Ask me to "list the files", "write hello to notes.txt", "read notes.txt", "search for hello", '
    '"what is 6*7" or "what time is it". '
    "Or give orders, one a line: /say N, /slow MS, /think TEXT, /tool NAME {json}, /tools, /fail REASON."
)

_Arguments = Callable[[re.Match[str]], dict[str, str]]

_PATH = r"[\"'`]?(?P<path>[\w./-]*\w)/?[\"'`]?"
_RULES: tuple[tuple[str, str, _Arguments], ...] = (
    (
        rf"(?:please )?(?:list|show)(?: me)?(?: all)?(?: the| my)? files(?: (?:in|of|below) (?:the folder )?{_PATH})?",
        "files.list",
        lambda match: {"path": match["path"] or "."},
    ),
    (
        rf"(?:please )?write [\"'`]?(?P<content>.+?)[\"'`]? (?:to|into) (?:the file )?{_PATH}",
        "files.write",
        lambda match: {"path": match["path"], "content": match["content"]},
    ),
    (
        r"(?:please )?(?:search|look)(?: the files)? for [\"'`]?(?P<text>.+?)[\"'`]?",
        "files.search",
        lambda match: {"text": match["text"]},
    ),
    (
        rf"(?:please )?(?:read|show|print|open)(?: me)?(?: the file)? {_PATH}",
        "files.read",
        lambda match: {"path": match["path"]},
    ),
    (
        r"what(?: time is it|(?:'s| is) the time)(?: now)?(?: in (?P<zone>[\w/+-]+))?",
        "time.now",
        lambda match: {"time_zone": match["zone"] or "UTC"},
    ),
    (
        r"(?:what(?:'s| is)|calculate|compute|evaluate) (?P<expression>[-+(\d.].*|(?:sqrt|sin|cos|log|exp|abs)\(.*)",
        "math.evaluate",
        lambda match: {"expression": match["expression"]},
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), tool, of) for pattern, tool, of in _RULES)
_MAX_LENGTH = 10_000


def understand(message: str) -> tuple[str, str] | None:
    """The tool that the words ask for and its arguments as JSON; None when no rule fits."""
    text = message.strip().rstrip("?!. ")
    if len(text) > _MAX_LENGTH:
        return None
    for pattern, tool, arguments in _COMPILED:
        match = pattern.fullmatch(text)
        if match is not None:
            return tool, json.dumps(arguments(match))
    return None
