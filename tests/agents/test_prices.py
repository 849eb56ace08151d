"""Prices: known ones are exact, unknown ones are told apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.prices import Price, Prices, Tokens, estimate_tokens, most_tokens

OWN = Prices({"local:llama": Price(1_000_000, 2_000_000, 100_000)}, unknown=Price(7_000_000, 9_000_000))


def test_the_demo_model_costs_nothing_and_that_is_known() -> None:
    assert OWN.cost("demo", Tokens(1000, 1000)) == (0, False)


def test_known_models_cost_what_the_catalogue_says() -> None:
    assert OWN.cost("anthropic:claude-sonnet-5", Tokens(1000, 100, cache_read=500, cache_write=100)) == (2150, False)
    assert OWN.of("anthropic:claude-sonnet-5") == Price(2_000_000, 10_000_000, 200_000, 2_500_000)


def test_configured_prices_come_first() -> None:
    assert OWN.cost("local:llama", Tokens(1000, 100, cache_read=500)) == (750, False)
    dear = Prices({"openai:gpt-4o": Price(10**9, 10**9)})
    assert dear.cost("openai:gpt-4o", Tokens(1, 1)) == (2000, False)


def test_an_unknown_model_costs_what_is_configured_for_that_and_says_so() -> None:
    for model_id in ("local:other", "anthropic:claude-of-tomorrow", "nonsense", "ollama:gpt-4o"):
        assert OWN.cost(model_id, Tokens(1_000_000, 0)) == (7_000_000, True)
        assert OWN.of(model_id) is None


def test_an_entry_of_the_catalogue_without_prices_is_no_price() -> None:
    assert OWN.cost("google:gemma-3", Tokens(1_000_000, 0)) == (7_000_000, True)
    assert OWN.of("google:gemma-3") is None


def test_costs_are_rounded_up() -> None:
    assert OWN.cost("local:llama", Tokens(0, 0))[0] == 0
    assert Prices({"x": Price(1, 1)}).cost("x", Tokens(1, 0))[0] == 1


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_cost_is_negative(given_tokens: int, made: int, read: int, written: int) -> None:
    for model_id in ("local:llama", "anthropic:claude-sonnet-5", "unknown"):
        assert OWN.cost(model_id, Tokens(given_tokens, made, read, written))[0] >= 0


def test_tokens_are_rather_over_than_underestimated() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("The quick brown fox jumps over the lazy dog.") >= 10
    assert estimate_tokens("素早い茶色の狐") == 7


COUNTS = st.integers(0, 10**6)
MODELS = st.sampled_from(("local:llama", "anthropic:claude-sonnet-5", "anthropic:claude-sonnet-4-5", "unknown"))


@given(MODELS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_no_call_costs_more_than_the_most(model_id: str, given_tokens: int, made: int, read: int, written: int) -> None:
    read = min(read, given_tokens)
    written = min(written, given_tokens - read)
    most = OWN.most(model_id, given_tokens, made)
    assert OWN.cost(model_id, Tokens(given_tokens, made, read, written))[0] <= most
    assert OWN.cost(model_id, Tokens(given_tokens // 2, made // 2))[0] <= most


@given(MODELS, st.integers(0, 300_000), st.integers(0, 10**7))
def test_money_never_pays_for_more_tokens_than_it_buys(model_id: str, given_tokens: int, micros: int) -> None:
    bought = OWN.output_within(model_id, given_tokens, micros)
    assert bought is not None
    assert bought == 0 or OWN.most(model_id, given_tokens, bought) <= micros


def test_what_costs_nothing_is_not_limited_by_money() -> None:
    assert OWN.output_within("demo", 1000, 0) is None


@given(st.text())
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    assert len(text) <= most_tokens(text) <= 4 * len(text)
    assert most_tokens(text) >= estimate_tokens(text)
