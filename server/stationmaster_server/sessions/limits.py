"""Limits of turns and sessions: which one a turn is about to break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from stationmaster_server.agents.model import Limits
from stationmaster_server.agents.runtime import Usage
from stationmaster_server.sessions.model import Breach

T = TypeVar("T", int, timedelta)


def lowest(agent: Limits, session: Limits) -> Limits:
    """Of each limit the lower one, None meaning no limit; of what happens at a breach the session's word."""
    one, other = agent, session
    return Limits(
        max_tokens_per_turn=_lower(one.max_tokens_per_turn, other.max_tokens_per_turn),
        max_tokens_per_session=_lower(one.max_tokens_per_session, other.max_tokens_per_session),
        max_cost_micros_per_turn=_lower(one.max_cost_micros_per_turn, other.max_cost_micros_per_turn),
        max_cost_micros_per_session=_lower(one.max_cost_micros_per_session, other.max_cost_micros_per_session),
        max_tool_calls_per_turn=_lower(one.max_tool_calls_per_turn, other.max_tool_calls_per_turn),
        max_tool_calls_per_session=_lower(one.max_tool_calls_per_session, other.max_tool_calls_per_session),
        max_turn_duration=_lower(one.max_turn_duration, other.max_turn_duration),
        max_session_duration=_lower(one.max_session_duration, other.max_session_duration),
        on_breach=session.on_breach or agent.on_breach,
    )


def with_portions(limits: Limits, *portions: Mapping[str, int]) -> Limits:
    """The limits, each once more for every time that somebody allowed it."""
    raised = {
        name: getattr(limits, name) * (1 + more)
        for allowed in portions
        for name, more in allowed.items()
        if getattr(limits, name) is not None
    }
    return replace(limits, **raised) if raised else limits


def output_tokens_left(limits: Limits, session: Usage, turn: Usage, input_tokens: int) -> int | None:
    """How many tokens a model call with so much input may still put out; None means any number."""
    left = [
        limit - used.total_tokens - input_tokens
        for limit, used in ((limits.max_tokens_per_turn, turn), (limits.max_tokens_per_session, session))
        if limit is not None
    ]
    return max(min(left), 0) if left else None


def cost_left(limits: Limits, session: Usage, turn: Usage) -> int | None:
    """How many millionths of a US dollar the next model call may cost; None means any number."""
    left = [
        limit - used.cost_micros
        for limit, used in ((limits.max_cost_micros_per_turn, turn), (limits.max_cost_micros_per_session, session))
        if limit is not None
    ]
    return max(min(left), 0) if left else None


def time_left(limits: Limits, session: Usage, turn: Usage) -> tuple[timedelta, Breach] | None:
    """How much longer the turn may run, and the limit that it breaks then; None means for any time."""
    left = [
        (limit - used.running_time, Breach(name, seconds := int(limit.total_seconds()), seconds + 1))
        for name, limit, used in (
            ("max_turn_duration", limits.max_turn_duration, turn),
            ("max_session_duration", limits.max_session_duration, session),
        )
        if limit is not None
    ]
    return min(left, key=lambda each: each[0]) if left else None


def within(reported: Usage, most: Usage) -> Usage:
    """A usage as it was reported; where that cannot be, because `most` was set aside, no more than that."""
    if reported.total_tokens <= most.total_tokens and reported.cost_micros <= most.cost_micros:
        return reported
    output_tokens = min(reported.output_tokens, most.output_tokens)
    input_tokens = min(reported.input_tokens, most.total_tokens - output_tokens)
    return replace(
        reported,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=min(reported.cached_input_tokens, input_tokens),
        cost_micros=min(reported.cost_micros, most.cost_micros),
        cost_estimated=True,
    )


def before_model_call(limits: Limits, session: Usage, turn: Usage, call: Usage) -> Breach | None:
    """The limit that a model call would break which uses `call`; `session` includes `turn`."""
    return _first(
        ("max_tokens_per_turn", limits.max_tokens_per_turn, turn.total_tokens + call.total_tokens),
        ("max_tokens_per_session", limits.max_tokens_per_session, session.total_tokens + call.total_tokens),
        ("max_cost_micros_per_turn", limits.max_cost_micros_per_turn, turn.cost_micros + call.cost_micros),
        ("max_cost_micros_per_session", limits.max_cost_micros_per_session, session.cost_micros + call.cost_micros),
    )


def before_tool_call(limits: Limits, session: Usage, turn: Usage) -> Breach | None:
    """The limit that one more tool call would break; `session` includes `turn`."""
    return _first(
        ("max_tool_calls_per_turn", limits.max_tool_calls_per_turn, turn.tool_calls + 1),
        ("max_tool_calls_per_session", limits.max_tool_calls_per_session, session.tool_calls + 1),
    )


def _first(*checks: tuple[str, int | None, int]) -> Breach | None:
    for name, limit, used in checks:
        if limit is not None and used > limit:
            return Breach(name, limit, used)
    return None


def _lower(one: T | None, other: T | None) -> T | None:
    return min((value for value in (one, other) if value is not None), default=None)
