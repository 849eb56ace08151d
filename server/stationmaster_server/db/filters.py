"""The filter language of lists, a subset of AIP-160, into SQL with placeholders.

    state = "ACTIVE" AND (create_time >= "2026-01-01T00:00:00Z" OR NOT title : "draft")

Comparisons `=`, `!=`, `<`, `<=`, `>`, `>=`, and `:`, which on text means "contains" (case ignored) or, with a final
`*`, "starts with"; on labels `labels.env = "prod"` and `labels:env` (has the key). AND, OR, NOT (or `-`) and
parentheses; OR binds tighter than AND, as AIP-160 has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from stationmaster_server.errors import InvalidArgument, Reason

_LONGEST = 4096
_DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator><=|>=|!=|=|<|>|:)
      | (?P<punctuation>[()\-](?![0-9.]))
      | (?P<moment>\d{4}-\d\d-\d\d[Tt][0-9:.+\-Zz]+)
      | (?P<word>[^\s()"'=<>!:]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ORDERED: frozenset[type] = frozenset({int, float, datetime, str})


@dataclass(frozen=True, slots=True)
class Field:
    """What a filter or an order may name: its SQL and its type (str, int, float, bool, datetime, UUID, an Enum, dict).

    An Enum is written by its member's name and compared by its value; a dict is a jsonb object of text. A field that
    lists are ordered by must never be NULL. `equals` is the condition for one value, where an index serves another
    one than `sql = value`; it is given the value and what makes a placeholder of one.
    """

    sql: str
    type: type
    equals: Callable[[Any, Callable[[object], str]], str] | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def filter_sql(text: str, fields: Mapping[str, Field], bind: Callable[[object], str]) -> str:
    """The condition of a filter (empty: no condition); `bind` keeps a value and returns its placeholder.

    InvalidArgument (INVALID_FILTER) for whatever cannot be understood, saying where and which fields there are.
    """
    if len(text) > _LONGEST:
        raise InvalidArgument.field("filter", f"is longer than {_LONGEST} characters", Reason.INVALID_FILTER)
    parser = _Parser(text, fields, bind)
    return parser.whole()


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Field], bind: Callable[[object], str]) -> None:
        self._text = text
        self._fields = fields
        self._bind = bind
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def whole(self) -> str:
        if self._peek().kind == "end":
            return ""
        sql = self._conjunction()
        if self._peek().kind != "end":
            raise self._error(self._peek(), "expected AND, OR or the end")
        return sql

    def _conjunction(self) -> str:
        parts = [self._disjunction()]
        while self._accept("AND"):
            parts.append(self._disjunction())
        return parts[0] if len(parts) == 1 else "(" + " AND ".join(parts) + ")"

    def _disjunction(self) -> str:
        parts = [self._term()]
        while self._accept("OR"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else "(" + " OR ".join(parts) + ")"

    def _term(self) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(self._peek(), f"is nested deeper than {_DEEPEST}")
        if self._accept("NOT") or self._accept("-"):
            sql = f"({self._term()}) IS NOT TRUE"
        elif self._accept("("):
            sql = self._conjunction()
            if not self._accept(")"):
                raise self._error(self._peek(), "expected a closing parenthesis")
        else:
            sql = self._comparison()
        self._depth -= 1
        return sql

    def _comparison(self) -> str:
        name = self._take("word", "expected a field")
        field, key = self._field(name)
        operator = self._take("operator", "expected one of = != < <= > >= :")
        value = self._peek()
        if value.kind not in ("string", "moment", "word"):
            raise self._error(value, "expected a value")
        self._next += 1
        if field.type is dict:
            return self._label(field, key, operator, value)
        if operator.text == ":":
            return self._has(field, operator, value)
        if operator.text not in ("=", "!=") and field.type not in _ORDERED:
            raise self._error(operator, f"{name.text} can be compared by = and != only")
        read = self._value(field.type, value)
        if field.equals is not None and operator.text in ("=", "!="):
            condition = field.equals(read, self._bind)
            return f"({condition})" if operator.text == "=" else f"({condition}) IS NOT TRUE"
        placeholder = self._bind(read)
        return f"{field.sql} {'IS DISTINCT FROM' if operator.text == '!=' else operator.text} {placeholder}"

    def _label(self, field: Field, key: str, operator: _Token, value: _Token) -> str:
        if not key and operator.text == ":":
            return f"{field.sql} ? {self._bind(self._string(value))}"
        if key and operator.text in ("=", "!="):
            comparison = "=" if operator.text == "=" else "IS DISTINCT FROM"
            return f"{field.sql} ->> {self._bind(key)}::text {comparison} {self._bind(self._string(value))}"
        raise self._error(operator, 'write labels.key = "value", labels.key != "value" or labels:key')

    def _has(self, field: Field, operator: _Token, value: _Token) -> str:
        if field.type is not str:
            raise self._error(operator, "`:` is for text and labels; write = here")
        text = self._string(value)
        if text.endswith("*"):
            return f"starts_with({field.sql}, {self._bind(text[:-1])})"
        pattern = re.sub(r"([\\%_])", r"\\\1", text)
        return f"{field.sql} ILIKE {self._bind(f'%{pattern}%')}"

    def _field(self, token: _Token) -> tuple[Field, str]:
        name, _, key = token.text.partition(".")
        field = self._fields.get(token.text) or self._fields.get(name)
        if field is None or (key and field.type is not dict and token.text not in self._fields):
            raise self._error(token, f"no such field {token.text!r}")
        return field, key if field.type is dict else ""

    def _string(self, token: _Token) -> str:
        value: str = self._value(str, token)
        return value

    def _value(self, kind: type, token: _Token) -> Any:
        text = token.text
        if token.kind == "string":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        if "\0" in text:
            raise self._error(token, "has a NUL character")
        try:
            return read_value(kind, text)
        except ValueError as error:
            raise self._error(token, str(error)) from None

    def _split(self) -> list[_Token]:
        tokens, position = [], 0
        end = len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                start = end - len(self._text[position:end].lstrip())
                raise self._error(_Token("", "", start), "cannot be read")
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, _Token("end", "", end)]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, text: str) -> bool:
        token = self._peek()
        if token.kind in ("word", "punctuation") and token.text == text:
            self._next += 1
            return True
        return False

    def _take(self, kind: str, complaint: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise self._error(token, complaint)
        self._next += 1
        return token

    def _error(self, token: _Token, complaint: str) -> InvalidArgument:
        known = ", ".join(sorted(self._fields))
        return InvalidArgument.field(
            "filter", f"at character {token.position + 1}: {complaint}; fields: {known}", Reason.INVALID_FILTER
        )


def read_value(kind: type, text: str) -> Any:
    """A value of a field's type from its text; ValueError says what was expected."""
    if issubclass(kind, Enum):
        if text not in kind.__members__:
            raise ValueError(f"expected one of {', '.join(kind.__members__)}")
        return kind[text].value
    reader = _READERS.get(kind)
    if reader is None:
        raise TypeError(f"fields of type {kind.__name__} cannot be filtered by")
    try:
        return reader(text)
    except (ValueError, OverflowError):
        raise ValueError(f"expected {_EXPECTED[kind]}") from None


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 1 < moment.year < 9999:
        raise ValueError
    return moment


_READERS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: _integer,
    float: float,
    bool: _boolean,
    datetime: _moment,
    UUID: UUID,
}
_EXPECTED: dict[type, str] = {
    int: "a whole number of 64 bits",
    float: "a number",
    bool: "true or false",
    datetime: 'a timestamp with its zone, for example "2026-01-31T12:00:00Z"',
    UUID: "a UUID",
}
