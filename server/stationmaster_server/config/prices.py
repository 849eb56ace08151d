"""Settings of what models cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from stationmaster_server.config.types import Group

_MOST = Decimal(1_000_000)

Dollars = Annotated[Decimal, Field(ge=0, le=_MOST)]
"""US dollars for a million tokens."""

SomeDollars = Annotated[Decimal, Field(gt=0, le=_MOST)]
"""US dollars for a million tokens, and not nothing."""


class PriceSettings(Group):
    """What a million tokens of a model cost, in US dollars; the cache costs what input does where it has no price."""

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class UnknownPriceSettings(Group):
    """What a million tokens of a model cost whose price nobody knows, in US dollars: its usage is marked as estimated.

    Not nothing, which a limit of cost would never stop; a model that does cost nothing says so in `models.prices`.
    """

    input: SomeDollars = Decimal(5)
    """Tokens that the model is given."""
    output: SomeDollars = Decimal(25)
    """Tokens that the model makes."""
