"""What is wrong with a condition in CEL, in a sentence: its parser lists the tokens of its grammar."""

from __future__ import annotations

import re

_ERROR = re.compile(r"ERROR: <input>:\d+:(\d+): (.*)")
_SYNTAX = "Syntax error: "
_END = "<EOF>"
_UNEXPECTED = re.compile(r"(?:extraneous|mismatched) input '(.*)' expecting .*")
_MISSING = re.compile(r"missing ('.*'|.*) at '(.*)'")
_UNKNOWN = re.compile(r"(?:no viable alternative at input|token recognition error at:) '(.*)'")


def told(error: str) -> str:
    """The first thing that the parser says, with its place: `character 9: '&&' is not expected there`."""
    found = _ERROR.findall(error)
    if not found:
        return (error.splitlines() or [""])[0][:300] or "it cannot be read"
    place, text = next((each for each in found if each[1].startswith(_SYNTAX)), found[0])
    return f"character {place}: {_sentence(text.removeprefix(_SYNTAX))}"[:300]


def _sentence(text: str) -> str:
    if match := _UNEXPECTED.fullmatch(text):
        return "something is missing at the end" if match[1] == _END else f"{match[1]!r} is not expected there"
    if match := _MISSING.fullmatch(text):
        return f"{match[1]} is missing" + (" at the end" if match[2] == _END else f" before {match[2]!r}")
    if match := _UNKNOWN.fullmatch(text):
        if match[1][:1] in ("'", '"'):
            return f"the text that begins with {match[1][:20]} has no end"
        word = match[1].strip()
        return f"{word!r} is nothing that a condition has" + ("; two things are compared by ==" if word == "=" else "")
    return text
