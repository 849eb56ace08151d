"""What tokens cost, and how many there are where nobody counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_MILLION = 1_000_000
# genai-prices' name of a provider, by ours. Others are not looked up: a local server's `llama` is not a shop's.
_CATALOGUES = {"anthropic": "anthropic", "openai": "openai", "google": "google"}
# English has about four characters a token, code about three; other scripts up to one. Rather a few too many: budgets
# are reserved by it.
_ASCII_CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Price:
    """Millionths of a US dollar for a million tokens. Without prices of its own the cache costs what input costs."""

    input_micros: int
    output_micros: int
    cache_read_micros: int | None = None
    cache_write_micros: int | None = None


# What a server answers by itself costs nothing, and that is known.
_BUILT_IN = {"demo": Price(0, 0)}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of model calls. `input` holds those read from and written to the provider's cache as well."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by model id: `overrides`, else the catalogue of genai-prices, else `unknown`, which is an estimate."""

    overrides: Mapping[str, Price] = field(default_factory=dict)
    unknown: Price = Price(5_000_000, 25_000_000)

    def cost(self, model_id: str, tokens: Tokens) -> tuple[int, bool]:
        """Millionths of a US dollar, rounded up, and whether that is an estimate because the price is not known."""
        fixed = self._fixed(model_id)
        if fixed is not None:
            return _by(fixed, tokens), False
        known = _catalogue_cost(model_id, tokens)
        if known is not None:
            return known, False
        return _by(self.unknown, tokens), True

    def most(self, model_id: str, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens cost at most, in millionths of a US dollar, whatever the cache does with the input."""
        ways = ((0, 0), (input_tokens, 0), (0, input_tokens))
        return max(self.cost(model_id, Tokens(input_tokens, output_tokens, *way))[0] for way in ways)

    def output_within(self, model_id: str, input_tokens: int, micros: int) -> int | None:
        """How many output tokens so much money pays for at least, beside that input; None: any number."""
        base = self.most(model_id, input_tokens, 0)
        for_a_million = self.most(model_id, input_tokens, _MILLION) - base
        if for_a_million <= 0:
            return None if base <= micros else 0
        return max((micros - base - 1) * _MILLION // for_a_million, 0)

    def of(self, model_id: str) -> Price | None:
        """The model's price, if it is known; of a price with tiers the lowest."""
        return self._fixed(model_id) or _catalogue_price(model_id)

    def _fixed(self, model_id: str) -> Price | None:
        return self.overrides.get(model_id) or _BUILT_IN.get(model_id)


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: rather too many than too few, and cheap."""
    return len(text) if not text.isascii() else -(-len(text) // _ASCII_CHARACTERS_PER_TOKEN)


def most_tokens(text: str) -> int:
    """How many tokens a text has at most: each stands for at least one of its bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def preload() -> None:
    """Reads the catalogue, which takes a third of a second: once, in a thread of its own."""
    _catalogue_price("anthropic:")


def _by(price: Price, tokens: Tokens) -> int:
    plain = max(tokens.input - tokens.cache_read - tokens.cache_write, 0)
    read = price.input_micros if price.cache_read_micros is None else price.cache_read_micros
    write = price.input_micros if price.cache_write_micros is None else price.cache_write_micros
    total = (
        plain * price.input_micros
        + tokens.cache_read * read
        + tokens.cache_write * write
        + tokens.output * price.output_micros
    )
    return -(-total // _MILLION)


def _catalogue_cost(model_id: str, tokens: Tokens) -> int | None:
    catalogue, name = _reference(model_id)
    if catalogue is None or _catalogue_price(model_id) is None:
        return None
    from genai_prices import Usage, calc_price

    usage = Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
    )
    try:
        price = calc_price(usage, name, provider_id=catalogue)
    except (LookupError, ValueError):
        return None
    return int((price.total_price * _MILLION).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=1024)
def _catalogue_price(model_id: str) -> Price | None:
    catalogue, name = _reference(model_id)
    if catalogue is None:
        return None
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(), name, provider_id=catalogue).model_price
    except (LookupError, ValueError):
        return None
    given, made = _micros(found.input_mtok), _micros(found.output_mtok)
    if given is None or made is None or given + made == 0:
        # An entry without prices is no price: a limit of cost would never stop such a model.
        return None
    return Price(given, made, _micros(found.cache_read_mtok), _micros(found.cache_write_mtok))


def _reference(model_id: str) -> tuple[str | None, str]:
    provider, _, name = model_id.partition(":")
    return _CATALOGUES.get(provider), name


def _micros(dollars: object) -> int | None:
    """Dollars for a million tokens, plain or in tiers, as millionths of a dollar."""
    base = getattr(dollars, "base", dollars)
    return int(base * _MILLION) if isinstance(base, Decimal) else None
