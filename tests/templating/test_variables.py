"""Variables: declarations and values are checked, and every fault is named by its path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.templating.model import Variable, VariableType
from stationmaster_server.templating.variables import check_declarations, check_values, names_fault

TOPIC = Variable("topic", required=True)
COUNT = Variable("count", VariableType.INTEGER, has_default=True, default=3, allowed=(1, 3, 5))
SHARE = Variable("share", VariableType.NUMBER)
ALL = (
    TOPIC,
    COUNT,
    SHARE,
    Variable("loud", VariableType.BOOLEAN),
    Variable("tags", VariableType.LIST),
    Variable("more", VariableType.OBJECT),
)


def violations(refused: pytest.ExceptionInfo[InvalidArgument]) -> dict[str, str]:
    return {violation.field: violation.description for violation in refused.value.violations}


def test_values_are_taken_over_and_defaults_filled_in() -> None:
    given = {"topic": "tea", "share": 0.5, "loud": False, "tags": ["a"], "more": {"x": {"y": None}}}
    assert check_values(ALL, given) == {**given, "count": 3}
    assert check_values((COUNT, SHARE), {}) == {"count": 3, "share": None}
    assert check_values((COUNT,), {"count": None}) == {"count": None}


def test_whole_numbers_are_integers_however_they_were_sent() -> None:
    values = check_values(ALL, {"topic": "", "count": 5.0, "share": 2.0, "tags": [1.0, 1.5], "more": {"n": 7.0}})
    assert repr(values["count"]) == "5"
    assert repr((values["share"], values["tags"], values["more"])) == "(2, [1, 1.5], {'n': 7})"


def test_every_fault_is_named_by_its_path() -> None:
    given = {"count": 2, "share": "much", "loud": 1, "tags": {}, "more": [], "spare": 1, "other": 2}
    with pytest.raises(InvalidArgument) as refused:
        check_values(ALL, given, "task.variables")
    assert violations(refused) == {
        "task.variables.topic": "is required: give a text",
        "task.variables.count": "2 is not allowed: give one of 1, 3, 5",
        "task.variables.share": '"much" is not a number',
        "task.variables.loud": "1 is not true or false",
        "task.variables.tags": "{} is not a list",
        "task.variables.more": "[] is not an object",
        "task.variables.spare": "is not declared: those declared are count, loud, more, share, tags, topic",
        "task.variables.other": "is not declared: those declared are count, loud, more, share, tags, topic",
    }
    assert "task.variables.more" in refused.value.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (Variable("x", VariableType.INTEGER), True),
        (Variable("x", VariableType.INTEGER), 1.5),
        (Variable("x", VariableType.INTEGER), "1"),
        (Variable("x", VariableType.NUMBER), True),
        (Variable("x", VariableType.NUMBER), math.nan),
        (Variable("x", VariableType.NUMBER), math.inf),
        (Variable("x", VariableType.STRING), 1),
        (Variable("x", required=True), None),
        (Variable("x", VariableType.LIST, allowed=([1],)), [2]),
    ],
)
def test_a_value_of_another_type_is_refused(variable: Variable, value: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_values((variable,), {"x": value})


def test_values_are_bounded() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(InvalidArgument, match="nested deeper than 32 levels"):
        check_values((Variable("x", VariableType.LIST),), {"x": deep})
    defaults = [Variable(name, has_default=True, default="-" * 200_000) for name in ("one", "two")]
    with pytest.raises(InvalidArgument, match="variables: of the defaults: they are larger than 256 KiB"):
        check_declarations(defaults)
    with pytest.raises(InvalidArgument, match="larger than 256 KiB"):
        check_values((TOPIC,), {"topic": "ü" * 131_072})
    with pytest.raises(InvalidArgument) as refused:
        check_values((), {f"x{n}": n for n in range(1000)})
    assert len(refused.value.violations) == 20


def test_declarations_that_can_be_are_let_through() -> None:
    check_declarations(ALL)
    check_declarations((Variable("x", has_default=True, default=None, allowed=("a",)),))


def test_declarations_that_cannot_be_are_refused_by_their_path() -> None:
    wrong = (
        Variable("1st"),
        Variable("loop"),
        Variable("twice"),
        Variable("twice"),
        Variable("both", required=True, has_default=True, default="x"),
        Variable("n", VariableType.INTEGER, has_default=True, default="x"),
        Variable("m", VariableType.INTEGER, allowed=(1, "two"), has_default=True, default=2),
        Variable("ü"),
    )
    with pytest.raises(InvalidArgument) as refused:
        check_declarations(wrong, "task.variables")
    assert {path: text.split(":")[0] for path, text in violations(refused).items()} == {
        "task.variables[0].name": "'1st' is no name",
        "task.variables[1].name": "'loop' means something else in templates",
        "task.variables[3].name": "'twice' is declared twice",
        "task.variables[4].default_value": "a required variable is always given",
        "task.variables[5].default_value": '"x" is not a whole number',
        "task.variables[6].allowed_values[1]": '"two" is not a whole number',
        "task.variables[6].default_value": "2 is not allowed",
        "task.variables[7].name": "'ü' is no name",
    }


def test_there_is_a_limit_to_declarations() -> None:
    with pytest.raises(InvalidArgument, match="there are 101; at most 100"):
        check_declarations([Variable(f"x{n}") for n in range(101)])


def test_names_that_are_not_declared_are_all_named() -> None:
    assert names_fault({"a"}, {"a", "b"}) == ""
    fault = names_fault({"d", "a", "c"}, {"b", "a"})
    assert fault == "it uses variables that are not declared: c, d; those declared are a, b"
