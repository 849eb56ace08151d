"""What a model call can come to at most."""

from __future__ import annotations

from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.runtime import TurnInput

# What providers may put around a request (some servers have a system prompt of their own), a message and a part of it.
TOKENS_OF_A_REQUEST = 256
TOKENS_OF_A_MESSAGE = 16
TOKENS_OF_A_PART = 64
# And around each tool, and to introduce them all: Anthropic takes up to 700 tokens for that.
_TOKENS_OF_A_TOOL = 100
_TOKENS_OF_TOOLS = 1_000
# A call that may say less is not made: its reservation breaks the limit.
LEAST_OUTPUT_TOKENS = 16


def tokens_around(tools: int) -> int:
    """How many tokens providers put around so many tools at most."""
    return _TOKENS_OF_A_TOOL * tools + _TOKENS_OF_TOOLS * bool(tools)


def output_tokens(turn: TurnInput, prices: Prices, wanted: int, input_tokens: int) -> int:
    """How many tokens a call may put out: what is wanted, cut to what limits and quotas leave beside its input."""
    left = wanted
    tokens = turn.output_budget(input_tokens) if turn.output_budget is not None else None
    if tokens is not None:
        left = min(left, tokens)
    micros = turn.cost_budget() if turn.cost_budget is not None else None
    bought = prices.output_within(turn.spec.model, input_tokens, micros) if micros is not None else None
    if bought is not None:
        left = min(left, bought)
    return min(wanted, max(left, LEAST_OUTPUT_TOKENS))
