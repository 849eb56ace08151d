"""Whether what grows is seen, and what goes up and down is not."""

from __future__ import annotations

import pytest

from tests.soak.figures import _RESOURCES, Figures, Look

STEADY = dict.fromkeys(_RESOURCES, 100.0)


def figures(name: str, values: list[float]) -> Figures:
    """Looks at a server one of whose figures was so, beside another that was killed soon."""
    looks = [Look(1, STEADY | {name: value}) for value in values]
    return Figures([Look(2, STEADY), *looks])


@pytest.mark.parametrize("name", _RESOURCES)
def test_what_grows_all_the_while_is_told_whichever_it_is(name: str) -> None:
    grown = figures(name, [100.0 + 30 * number for number in range(40)]).grown()
    assert [told.partition(":")[0] for told in grown] == [name]


@pytest.mark.parametrize("name", _RESOURCES)
def test_what_is_steady_after_it_was_warm_or_goes_up_and_down_is_not(name: str) -> None:
    assert figures(name, [20.0 * min(number, 8) for number in range(40)]).grown() == []
    assert figures(name, [100.0 + 50 * (number % 2) for number in range(40)]).grown() == []


def test_without_a_look_nothing_is_shown() -> None:
    with pytest.raises(ValueError, match="empty"):
        Figures().grown()
