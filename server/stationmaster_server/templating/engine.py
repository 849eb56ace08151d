"""Compiles templates, tells what they use, and fills them in. Pure: it runs in the event loop or in a process apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError

from stationmaster_server.templating.filters import MOST_CHARACTERS, TooMuch, words
from stationmaster_server.templating.model import Fault, Outline
from stationmaster_server.templating.paths import missing_paths
from stationmaster_server.templating.sandbox import Sandbox

MOST_TEXT = 256 * 1024
"""Characters of a template."""
_SHORT = 16_000
_AT_ONCE_MICROSECONDS = 5_000
_MOST_KEPT = 256
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
}
# What a linear template may be made of, with these filters and tests.
_LINEAR = (
    nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.If, nodes.CondExpr,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter, nodes.Test, nodes.Concat,
    nodes.List, nodes.Tuple,
)  # fmt: skip
_LINEAR_FILTERS = words(
    "capitalize count d default e escape first float int last length lower string tojson trim upper"
)
_QUOTING = "tojson"
"""Of what it made itself, it doubles each backslash: in each other it grows without bound."""
_LINEAR_TESTS = words(
    "boolean defined eq equalto false float ge gt in integer le lt mapping ne none number sequence string true"
    " undefined"
)
_MOST_NAMES = 20
_sandbox = Sandbox()


class Faulty(Exception):
    """A template cannot be compiled or filled in."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: Template
    outline: Outline


_kept: dict[str, _Compiled] = {}
"""What was compiled, by its text, in the order of use."""


def is_short(text: str) -> bool:
    """Whether a template is read and compiled within some milliseconds."""
    return bool(short_ones([text]))


def short_ones(texts: Iterable[str]) -> list[str]:
    """Those of the templates that are compiled within some milliseconds, all together: what is kept takes no time."""
    room, found = _AT_ONCE_MICROSECONDS, []
    for text in dict.fromkeys(texts):
        if text in _kept:
            found.append(text)
        elif room > 0 and len(text) <= _SHORT:
            room -= _cost(text, room)
            if room >= 0:
                found.append(text)
    return found


def _cost(text: str, most: int) -> int:
    """About how many microseconds it takes to compile a template, no further than `most`.

    Measured: what is nested in an expression, as `a|upper|upper`, costs the cube of its depth.
    """
    cost, inside = 250 + len(text) // 5, 0
    try:
        for _, token, _ in _sandbox.lexer.tokeniter(text, None):
            if token not in {"data", "whitespace"}:
                inside = 0 if token.endswith(("_begin", "_end")) else inside + 1
                cost += 16 + inside * inside // 2
            if cost > most:
                break
    except TemplateSyntaxError:
        pass  # it is refused as quickly
    return cost


def lex(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of each token; together they are the template. Raises TemplateSyntaxError."""
    return _sandbox.lexer.tokeniter(text, None)


def outlines(texts: Mapping[str, str]) -> dict[str, Outline | Fault]:
    """What each of the templates uses, or why it is none."""
    by_text: dict[str, Outline | Fault] = {}
    for text in dict.fromkeys(texts.values()):
        try:
            by_text[text] = _compile(text).outline
        except Faulty as error:
            by_text[text] = error.fault
    return {path: by_text[text] for path, text in texts.items()}


def fill_all(
    texts: Mapping[str, str], values: Mapping[str, Any], most: int = MOST_CHARACTERS, made: int = 0
) -> dict[str, str | Fault]:
    """Each of the templates filled in, or why it cannot be; or that which makes more than `most` characters of all.

    `made`: characters that count already.
    """
    by_text: dict[str, str | Fault] = {}
    filled: dict[str, str | Fault] = {}
    for path, text in texts.items():
        if text not in by_text:
            by_text[text] = _filled(text, values)
        filled[path] = one = by_text[text]
        made += len(one) if isinstance(one, str) else 0
        if made > most:
            return {path: Fault(f"with it the texts become longer than {most} characters together")}
    return filled


def _filled(text: str, values: Mapping[str, Any]) -> str | Fault:
    try:
        return fill(text, values)
    except Faulty as error:
        return error.fault


def outline(text: str) -> Outline:
    """What a template uses; Faulty."""
    return _compile(text).outline


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A template filled in with JSON values; Faulty, which names every variable that is missing."""
    compiled = _compile(text)
    if missing := sorted(compiled.outline.required - values.keys()):
        named = ", ".join(missing[:_MOST_NAMES]) + (" and others" if len(missing) > _MOST_NAMES else "")
        raise Faulty(Fault(f"variables without a value: {named}; give them, or a default: {{{{ name|default('') }}}}"))
    pieces: list[str] = []
    size = 0
    try:
        for piece in compiled.template.generate(values):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_CHARACTERS:
                raise TooMuch(f"it becomes longer than {MOST_CHARACTERS} characters")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a template does wrong is its author's to know
        raise Faulty(_runtime_fault(error, text, values)) from None
    return "".join(pieces)


def _compile(text: str) -> _Compiled:
    known = _kept.pop(text, None) or _compiled(text)
    _kept[text] = known
    if len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]
    return known


def _compiled(text: str) -> _Compiled:
    if len(text) > MOST_TEXT:
        raise Faulty(Fault(f"it is longer than {MOST_TEXT} characters"))
    try:
        tree = _sandbox.parse(text)
        found = _outline(tree)
        code = _sandbox.compile(tree)
        return _Compiled(Template.from_code(_sandbox, code, dict(_sandbox.globals)), found)
    except TemplateSyntaxError as error:
        raise Faulty(Fault(error.message or "it cannot be read", error.lineno)) from None
    except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
        detail = error if isinstance(error, TemplateError) else "it is nested too deeply"
        raise Faulty(Fault(f"it cannot be read: {detail}")) from None


def _outline(tree: nodes.Template) -> Outline:
    weight, linear = len(tree.body), True
    for node in _walk(tree):
        _check_available(node)
        weight += 1
        linear = linear and _is_linear(node)
    names = meta.find_undeclared_variables(tree)
    optional = {name.name for name in _guarded(tree)} & names
    return Outline(frozenset(names - optional), frozenset(optional), linear, weight)


def _check_available(node: nodes.Node) -> None:
    """Jinja2 itself would find unknown filters and tests inside of conditions only when it gets there."""
    if type(node) in _REFUSED:
        raise TemplateSyntaxError(f"'{_REFUSED[type(node)]}' is not available here", node.lineno)
    if isinstance(node, nodes.Filter) and node.name not in _sandbox.filters:
        raise TemplateSyntaxError(f"there is no filter named {node.name!r}", node.lineno)
    if isinstance(node, nodes.Test) and node.name not in _sandbox.tests:
        raise TemplateSyntaxError(f"there is no test named {node.name!r}", node.lineno)


def _walk(tree: nodes.Node) -> list[nodes.Node]:
    """All nodes below one, without recursion."""
    found, at = list(tree.iter_child_nodes()), 0
    while at < len(found):
        found.extend(found[at].iter_child_nodes())
        at += 1
    return found


def _is_linear(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in _LINEAR_FILTERS and not (node.name == _QUOTING and any(map(_is_quoting, _walk(node))))
    if isinstance(node, nodes.Test):
        return node.name in _LINEAR_TESTS
    return isinstance(node, _LINEAR)


def _is_quoting(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Filter) and node.name == _QUOTING


def _guarded(tree: nodes.Template) -> list[nodes.Name]:
    """The names that have a default somewhere, or are asked whether they are defined."""
    found = []
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        if not isinstance(node, (nodes.Filter, nodes.Test)):
            continue
        inner = node.node
        while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
            inner = inner.node
        if node.name in {"d", "default", "defined", "undefined"} and isinstance(inner, nodes.Name):
            found.append(inner)
    return found


def _runtime_fault(error: Exception, text: str, values: Mapping[str, Any]) -> Fault:
    line = _line(error.__traceback__)
    match error:
        case SecurityError():
            return Fault("it asks for what templates must not have", line)
        case UndefinedError() if missing := missing_paths(_sandbox.parse(text), values, error.message or ""):
            return Fault(f"there is no value for {', '.join(missing[:_MOST_NAMES])}", line)
        case UndefinedError():
            return Fault(f"{error.message}", line)
        case RecursionError():
            return Fault("it calls itself too often", line)
        case TooMuch() | OverflowError():
            return Fault(f"it asks for too much: {error}", line)
        case _:
            return Fault(f"it cannot be filled in: {str(error)[:300]}", line)


def _line(traceback: TracebackType | None) -> int | None:
    """The line of the template; Jinja2 puts those of its text into the traceback."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
