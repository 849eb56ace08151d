"""Variables: whether declarations can be, and values against them; every fault is named by its path."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.templating.filters import words
from stationmaster_server.templating.model import Variable, VariableType

MOST_VARIABLES = 100
MOST_BYTES = 256 * 1024
MOST_LEVELS = 32
_MOST_VIOLATIONS = 20
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}")
_RESERVED = words(
    "and caller cycler dict else false if in is joiner kwargs loop namespace none not or range self true varargs"
    " False None True"
)
_KINDS = {
    VariableType.STRING: "a text",
    VariableType.INTEGER: "a whole number",
    VariableType.NUMBER: "a number",
    VariableType.BOOLEAN: "true or false",
    VariableType.LIST: "a list",
    VariableType.OBJECT: "an object",
    VariableType.ANY: "a value",
}
_WHOLE_BELOW = 2**53
_MOST_ESCAPED = 6
"""Bytes of a character in JSON."""
_MOST_OF_A_NUMBER = 32
"""Characters, with what stands between two fields."""


def check_declarations(variables: Sequence[Variable], path: str = "variables") -> None:
    """Whether these variables can be declared. Raises InvalidArgument naming all that is wrong."""
    faults = []
    if len(variables) > MOST_VARIABLES:
        faults.append(FieldViolation(path, f"there are {len(variables)}; at most {MOST_VARIABLES} can be declared"))
    if size_fault := _size_fault({variable.name: variable.default for variable in variables[:MOST_VARIABLES]}):
        raise InvalidArgument.field(path, f"of the defaults: {size_fault}")
    seen: set[str] = set()
    for place, variable in enumerate(variables[:MOST_VARIABLES]):
        faults += [FieldViolation(f"{path}[{place}].{field}", text) for field, text in _declared(variable, seen)]
        seen.add(variable.name)
    _raise(faults)


def _declared(variable: Variable, seen: set[str]) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(variable.name):
        yield "name", f"{variable.name[:80]!r} is no name: write letters, digits and `_`, not beginning with a digit"
    elif variable.name in _RESERVED:
        yield "name", f"{variable.name!r} means something else in templates: choose another name"
    elif variable.name in seen:
        yield "name", f"{variable.name!r} is declared twice"
    if variable.required and variable.has_default:
        yield "default_value", "a required variable is always given: leave out its default, or do not require it"
    for place, allowed in enumerate(variable.allowed):
        if fault := _type_fault(variable.type, allowed):
            yield f"allowed_values[{place}]", fault
    if variable.has_default and variable.default is not None and (fault := _value_fault(variable, variable.default)):
        yield "default_value", fault


def check_values(variables: Sequence[Variable], given: Mapping[str, Any], path: str = "variables") -> dict[str, Any]:
    """All variables with the values given or their defaults; those without either are null.

    Whole numbers are integers, however they were sent. Raises InvalidArgument naming all that is wrong.
    """
    if size_fault := _size_fault(given):
        raise InvalidArgument.field(path, size_fault)
    declared = {variable.name: variable for variable in variables}
    faults = [FieldViolation(f"{path}.{name[:80]}", _unknown(declared)) for name in given if name not in declared]
    values: dict[str, Any] = {}
    for name, variable in declared.items():
        value = given.get(name)
        if name in given and not (value is None and not variable.required):
            if fault := _value_fault(variable, value):
                faults.append(FieldViolation(f"{path}.{name}", fault))
        elif variable.required:
            faults.append(FieldViolation(f"{path}.{name}", f"is required: give {_KINDS[variable.type]}"))
        else:
            value = value if name in given else variable.default
        values[name] = whole(value)
    _raise(faults)
    return values


def names_fault(used: Iterable[str], known: Iterable[str]) -> str:
    """What is wrong with a template that uses other variables than the known ones; empty when it does not."""
    known = sorted(known)
    unknown = sorted(set(used) - set(known))
    if not unknown:
        return ""
    has = f"those declared are {', '.join(known[:_MOST_VIOLATIONS])}" if known else "none are declared"
    names = ", ".join(name[:80] for name in unknown[:_MOST_VIOLATIONS])
    return f"it uses variables that are not declared: {names}; {has}"


def flat_size(given: Mapping[str, Any]) -> int | None:
    """About how many characters values have, if none of them holds others."""
    size = 0
    for name, value in given.items():
        if isinstance(value, str):
            size += len(value)
        elif not isinstance(value, (int, float)) and value is not None:
            return None
        size += len(name) + _MOST_OF_A_NUMBER
    return size


def whole(value: Any) -> Any:
    """The value with whole numbers as integers at every level: JSON does not tell 5 from 5.0, and texts should."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_BELOW:
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def _value_fault(variable: Variable, value: Any) -> str:
    if fault := _type_fault(variable.type, value):
        return fault
    if variable.allowed and whole(value) not in [whole(allowed) for allowed in variable.allowed]:
        allowed = ", ".join(json.dumps(whole(one), ensure_ascii=False)[:80] for one in variable.allowed[:10])
        return f"{json.dumps(whole(value), ensure_ascii=False)[:80]} is not allowed: give one of {allowed}"
    return ""


def _type_fault(wanted: VariableType, value: Any) -> str:
    if _is_a(wanted, whole(value)):
        return ""
    return f"{json.dumps(value, ensure_ascii=False)[:80]} is not {_KINDS[wanted]}"


def _is_a(wanted: VariableType, value: Any) -> bool:
    match wanted:
        case VariableType.STRING:
            return isinstance(value, str)
        case VariableType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case VariableType.NUMBER:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        case VariableType.BOOLEAN:
            return isinstance(value, bool)
        case VariableType.LIST:
            return isinstance(value, list)
        case VariableType.OBJECT:
            return isinstance(value, dict)
        case VariableType.ANY:
            return True


def _size_fault(given: Mapping[str, Any]) -> str:
    if (flat := flat_size(given)) is not None and flat * _MOST_ESCAPED <= MOST_BYTES:
        return ""
    level: list[Any] = [given]
    for _ in range(MOST_LEVELS):
        level = [item for value in level for item in _items(value)]
        if not level:
            break
    if level:
        return f"they are nested deeper than {MOST_LEVELS} levels"
    size = len(json.dumps(given, ensure_ascii=False).encode(errors="surrogatepass"))
    return f"they are larger than {MOST_BYTES // 1024} KiB" if size > MOST_BYTES else ""


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def _unknown(declared: Mapping[str, Variable]) -> str:
    names = ", ".join(sorted(declared)[:_MOST_VIOLATIONS])
    return f"is not declared: {f'those declared are {names}' if names else 'none are'}"


def _raise(faults: Sequence[FieldViolation]) -> None:
    if faults:
        told = faults[:_MOST_VIOLATIONS]
        more = f" (and {len(faults) - len(told)} more)" if len(faults) > len(told) else ""
        text = "; ".join(f"{fault.field}: {fault.description}" for fault in told)
        raise InvalidArgument(Reason.INVALID_FIELD, f"{text}{more}", *told)
