"""Limits of an agent as options: `--limit dollars-per-turn=0.50`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.output import plain

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from stationmaster.v1 import agent_pb2

NAMES = {
    "tokens-per-turn": "max_tokens_per_turn",
    "tokens-per-session": "max_tokens_per_session",
    "dollars-per-turn": "max_cost_micros_per_turn",
    "dollars-per-session": "max_cost_micros_per_session",
    "tool-calls-per-turn": "max_tool_calls_per_turn",
    "tool-calls-per-session": "max_tool_calls_per_session",
    "seconds-per-turn": "max_turn_duration",
    "seconds-per-session": "max_session_duration",
}
_AT_LIMIT = ("ask", "end")


def set_limits(limits: agent_pb2.Limits, given: Sequence[str], at_limit: str) -> None:
    """Put what the options say over what is there; `none` takes a limit away."""
    from stationmaster.v1 import agent_pb2

    for each in given:
        name, _, text = each.partition("=")
        if name not in NAMES or not text:
            raise CommandError(f"--limit {each!r}: write NAME=VALUE, where NAME is one of {', '.join(NAMES)}")
        _set(limits, NAMES[name], text)
    if at_limit:
        if at_limit not in _AT_LIMIT:
            raise CommandError(f"--at-limit {at_limit!r}: write ask or end")
        limits.on_breach = agent_pb2.OnBreach.Value(f"ON_BREACH_{at_limit.upper()}")


def described(limits: agent_pb2.Limits) -> str:
    """The limits on one line, as options give them."""
    from stationmaster.v1 import agent_pb2

    told = []
    for name, field in NAMES.items():
        value = getattr(limits, field)
        if field.endswith("_duration"):
            value = value.ToTimedelta().total_seconds()
        if value:
            told.append(f"{name}={value / 1_000_000 if 'micros' in field else value:g}")
    if limits.on_breach:
        told.append(f"at a limit: {plain(agent_pb2.OnBreach.Name(limits.on_breach), 'ON_BREACH')}")
    return ", ".join(told)


def _set(limits: Message, field: str, text: str) -> None:
    if text == "none":
        limits.ClearField(field)
        return
    try:
        if field.endswith("_duration"):
            getattr(limits, field).FromTimedelta(timedelta(seconds=float(text)))
        elif "micros" in field:
            setattr(limits, field, round(float(text) * 1_000_000))
        else:
            setattr(limits, field, int(text))
    except (ValueError, OverflowError):
        raise CommandError(f"{text!r} is no number for this limit; 'none' takes it away") from None
    value = getattr(limits, field)
    if value.ToTimedelta() <= timedelta() if field.endswith("_duration") else value <= 0:
        # Nothing is what the absence of a limit looks like.
        raise CommandError(f"{text!r} is too little for this limit; 'none' takes it away")
