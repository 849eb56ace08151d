"""What an answer used: as the provider counted, or as we estimate where it did not."""

from __future__ import annotations

from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from stationmaster_server.agents.prices import Prices, Tokens, estimate_tokens
from stationmaster_server.agents.runtime import Usage

_CHARACTERS_PER_TOKEN = 3


def of_answer(response: ModelResponse, model_id: str, estimated_input: int, prices: Prices) -> Usage:
    """The usage of a whole answer. What is not reported is estimated: no call is free that brought something."""
    counted = _tokens(response.usage)
    said = sum(estimate_tokens(_text(part)) for part in response.parts)
    tokens = Tokens(counted.input or estimated_input, counted.output or said, counted.cache_read, counted.cache_write)
    return _priced(tokens, model_id, prices, estimated=tokens != counted)


def of_broken_answer(
    counted: RequestUsage, characters: int, model_id: str, estimated_input: int, prices: Prices
) -> Usage:
    """The usage of an answer that broke off after so many characters: it is paid for as well."""
    known = _tokens(counted)
    output = max(known.output, -(-characters // _CHARACTERS_PER_TOKEN))
    tokens = Tokens(known.input or estimated_input, output, known.cache_read, known.cache_write)
    return _priced(tokens, model_id, prices, estimated=True)


def _tokens(counted: RequestUsage) -> Tokens:
    """As reported, but never less than nothing."""
    reported = (counted.input_tokens, counted.output_tokens, counted.cache_read_tokens, counted.cache_write_tokens)
    return Tokens(*(max(tokens, 0) for tokens in reported))


def _priced(tokens: Tokens, model_id: str, prices: Prices, *, estimated: bool) -> Usage:
    cost, unknown = prices.cost(model_id, tokens)
    return Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cached_input_tokens=tokens.cache_read,
        cost_micros=cost,
        cost_estimated=unknown or estimated,
        model_calls=1,
    )


def _text(part: object) -> str:
    match part:
        case TextPart(content=text) | ThinkingPart(content=text):
            return text
        case ToolCallPart():
            return part.args_as_json_str()
    return ""
