"""`{% include "name" %}`: found in a template, and replaced before the sandbox sees it. Pure, as the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import TemplateSyntaxError

from stationmaster_server.templating.engine import MOST_TEXT, Faulty, lex
from stationmaster_server.templating.model import Fault

_WORD = "include"
_Token = tuple[int, str, str]


def names(text: str) -> tuple[str, ...]:
    """What a template includes, each once, in order. Faulty when it cannot be read, or an include names no text."""
    if _WORD not in text:
        return ()
    return tuple(dict.fromkeys(name for _, name in _parts(text) if name is not None))


def expand(text: str, by_name: Mapping[str, str]) -> str:
    """The template with each include replaced. Faulty when it becomes too long; KeyError for a name that is not there.

    White space around an include is kept or cut as its tag says: `{%- include "name" -%}`.
    """
    if _WORD not in text:
        return text
    pieces: list[str] = []
    size = 0
    for piece, name in _parts(text):
        pieces.append(piece if name is None else by_name[name])
        size += len(pieces[-1])
        if size > MOST_TEXT:
            raise Faulty(Fault(f"with what it includes it is longer than {MOST_TEXT} characters"))
    return "".join(pieces)


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """The pieces of a template in order: text as it stands, or an include with its name."""
    block: list[_Token] = []
    try:
        for token in lex(text):
            kind, value = token[1], token[2]
            if kind == "block_begin":
                block = [token]
            elif not block:
                yield value, None
            else:
                block.append(token)
                if kind == "block_end":
                    yield "".join(each[2] for each in block), _included(block)
                    block = []
    except TemplateSyntaxError as error:
        raise Faulty(Fault(error.message or "it cannot be read", error.lineno)) from None
    if block:
        raise Faulty(Fault("a tag is not closed", block[0][0]))


def _included(block: list[_Token]) -> str | None:
    words = [token for token in block[1:-1] if token[1] != "whitespace"]
    if not words or words[0][1:] != ("name", _WORD):
        return None
    if len(words) != 2 or words[1][1] != "string":
        raise Faulty(Fault('an include names a prompt in quotes and nothing else: {% include "name" %}', words[0][0]))
    return words[1][2][1:-1].strip()
