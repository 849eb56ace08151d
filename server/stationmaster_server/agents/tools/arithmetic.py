"""math.evaluate: arithmetic on numbers, by walking the syntax tree; nothing is ever executed."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from pydantic import Field

from stationmaster_server.agents.tools.tool import Arguments, Tool, ToolContext, ToolError, TypedTool

MAX_LENGTH = 1_000
MAX_NODES = 200
MAX_BITS = 4_096
MAX_EXPONENT = 1_024

Number = int | float


class EvaluateArguments(Arguments):
    expression: str = Field(
        description="Such as `2 * (3 + 4) ** 2 / sqrt(2)`. Operators + - * / // % **, functions abs, ceil, cos, exp, "
        "floor, log, max, min, round, sin, sqrt, tan, constants e, pi.",
        min_length=1,
        max_length=MAX_LENGTH,
    )


_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "max": max,
    "min": min,
    "round": round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}
_CONSTANTS = {"e": math.e, "pi": math.pi}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression.

    Raises:
        ToolError: It is not arithmetic, is too large, or has no value.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"{expression!r} is not an arithmetic expression") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ToolError("the expression has too many parts")
    try:
        return _bounded(_value(tree.body))
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ToolError(f"{expression!r} has no value: {error}") from None


def math_tools() -> tuple[Tool, ...]:
    """The tool."""
    return (TypedTool("math.evaluate", "Evaluate an arithmetic expression.", EvaluateArguments, _evaluate),)


async def _evaluate(context: ToolContext, arguments: EvaluateArguments) -> str:
    value = evaluate(arguments.expression)
    return repr(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else repr(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _bounded(_BINARY[type(sign)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*(_value(argument) for argument in arguments)))
    raise ToolError(f"only numbers, + - * / // % ** and known functions are allowed, not {type(node).__name__}")


def _power(base: Number, exponent: Number) -> Number:
    if abs(exponent) > MAX_EXPONENT:
        raise ToolError(f"an exponent must lie between -{MAX_EXPONENT} and {MAX_EXPONENT}")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise ToolError("the number is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise ToolError("a negative number has no real root of this kind")
    return _bounded(result)


def _bounded(value: object) -> Number:
    if not isinstance(value, int | float):
        raise ToolError("the value is not a number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolError("the number is too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("the value is not a finite number")
    return value
