"""What the demo model does next: it follows from the messages alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolReturnPart, UserPromptPart

from stationmaster_server.agents.demo.grammar import Call, Calls, Order, Say, Slow, Tell, parse

_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class Step:
    """One answer: its orders, the last of which may be calls, and the pause before each word at its beginning."""

    orders: tuple[Order, ...]
    pause: float
    call_prefix: str


def next_step(messages: Sequence[ModelMessage]) -> Step:
    """The answer to these messages: the orders of the newest prompt behind the calls that have results."""
    prompt, results = _newest(messages)
    orders = parse(prompt)
    done, begin = 0, 0
    for index, order in enumerate(orders):
        if isinstance(order, Calls) and done + len(order.calls) <= len(results):
            done += len(order.calls)
            begin = index + 1
    pauses = [order.seconds for order in orders[:begin] if isinstance(order, Slow)]
    pause = pauses[-1] if pauses else 0.0
    rest = orders[begin:]
    last = next((index for index, order in enumerate(rest) if isinstance(order, Calls)), None)
    prefix = f"demo-{len(messages)}"
    if last is not None:
        return Step(rest[: last + 1], pause, prefix)
    called = [call for order in orders if isinstance(order, Calls) for call in order.calls]
    if called and not any(isinstance(order, Say | Tell) for order in rest):
        rest = (*rest, Tell(_summary(called, results)))
    return Step(rest, pause, prefix)


def _newest(messages: Sequence[ModelMessage]) -> tuple[str, list[ToolReturnPart]]:
    """The newest prompt, and the results behind it."""
    results: list[ToolReturnPart] = []
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            continue
        results[:0] = [part for part in message.parts if isinstance(part, ToolReturnPart)]
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                return (part.content if isinstance(part.content, str) else ""), results
    return "", results


def _summary(called: Sequence[Call], results: Iterable[ToolReturnPart]) -> str:
    lines = []
    for call, result in zip(called, results, strict=False):
        content = str(result.content)
        shown = content if len(content) <= _SHOWN else content[:_SHOWN] + " [...]"
        how = "says" if result.outcome == "success" else "failed"
        lines.append(f"{call.tool} {how}: {shown}")
    return "\n".join(lines)
