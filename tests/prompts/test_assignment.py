"""Who gets which variant."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stationmaster_server.prompts.assignment import assign, draw, free_slots, pick, slot
from stationmaster_server.prompts.experiment_model import SLOTS, Experiment, ExperimentState, Metric, Variant

GUIDE = Path(__file__).parents[2] / "docs/guides/experiments.md"
UNITS = [f"users/{number}" for number in range(100_000)]
VARIANTS = (Variant("control", 1, 50), Variant("short", 2, 30), Variant("long", 3, 20))
EXPERIMENT = Experiment(
    id=UUID("01a21600-0000-7000-8000-000000000001"),
    prompt_id="p",
    prompt_uid=UUID(int=0),
    user_id=UUID(int=0),
    display_name="",
    description="",
    label="production",
    variants=VARIANTS,
    traffic=SLOTS,
    exclusion_group="",
    metric=Metric.SUCCESS,
    alpha=0.05,
    minimum=100,
    state=ExperimentState.RUNNING,
    slots=((0, SLOTS),),
    winner="",
    etag="",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
SALT = str(EXPERIMENT.id)


def within(count: int, share: float, total: int, *, deviations: float = 4.5) -> bool:
    """Whether a count is as near to its share as chance would have it, but for once in 100,000 times."""
    return abs(count - share * total) <= deviations * sqrt(total * share * (1 - share))


def test_a_hundred_thousand_assignments_are_spread_as_the_weights_say() -> None:
    counts = Counter(pick(SALT, VARIANTS, unit).variant_id for unit in UNITS)
    for variant in VARIANTS:
        assert within(counts[variant.variant_id], variant.weight / 100, len(UNITS)), counts


def test_assignments_are_sticky_in_whatever_order_variants_stand() -> None:
    turned = (VARIANTS[2], VARIANTS[0], VARIANTS[1])
    for unit in UNITS[:10_000]:
        assert pick(SALT, VARIANTS, unit) == pick(SALT, VARIANTS, unit) == pick(SALT, turned, unit)


@pytest.mark.parametrize("weight", [1, 10, 60, 500])
def test_when_a_weight_moves_only_those_move_that_must(weight: int) -> None:
    moved = (VARIANTS[0], replace(VARIANTS[1], weight=weight), VARIANTS[2])
    before = [pick(SALT, VARIANTS, unit).variant_id for unit in UNITS]
    after = [pick(SALT, moved, unit).variant_id for unit in UNITS]
    changes = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    grew = weight > VARIANTS[1].weight
    assert all((new if grew else old) == "short" for old, new in changes), changes
    share, total = VARIANTS[1].weight / 100, 70 + weight
    fewest = abs(weight / total - share)
    count = sum(old != new for old, new in zip(before, after, strict=True))
    assert within(count, fewest, len(UNITS)), "more moved than the shares differ by"


def test_a_larger_share_of_the_traffic_adds_units_and_moves_none() -> None:
    tenth, half = (replace(EXPERIMENT, slots=((0, size),)) for size in (SLOTS // 10, SLOTS // 2))
    given = [(assign(tenth, unit), assign(half, unit)) for unit in UNITS]
    assert within(sum(first is not None for first, _ in given), 0.1, len(UNITS))
    assert within(sum(second is not None for _, second in given), 0.5, len(UNITS))
    assert all(first is None or first == second for first, second in given)


def test_who_takes_part_tells_nothing_about_the_variant() -> None:
    tenth = replace(EXPERIMENT, slots=((0, SLOTS // 10),))
    counts = Counter(variant.variant_id for unit in UNITS if (variant := assign(tenth, unit)))
    for variant in VARIANTS:
        assert within(counts[variant.variant_id], variant.weight / 100, counts.total()), counts


def test_experiments_are_independent_of_each_other() -> None:
    other = str(UUID(int=7))
    both = Counter((pick(SALT, VARIANTS, unit).variant_id, pick(other, VARIANTS, unit).variant_id) for unit in UNITS)
    for first in VARIANTS:
        for second in VARIANTS:
            share = first.weight * second.weight / 10_000
            assert within(both[first.variant_id, second.variant_id], share, len(UNITS)), both


def test_experiments_of_a_group_never_share_a_unit() -> None:
    group = replace(EXPERIMENT, exclusion_group="checkout")
    first = replace(group, slots=((0, 3000),))
    second = replace(group, id=UUID(int=9), slots=((3000, 10_000),))
    for unit in UNITS[:20_000]:
        assert (assign(first, unit) is None) is (assign(second, unit) is not None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 4000), max_size=8), st.integers(0, 7), st.integers(1, SLOTS))
def test_slots_that_are_given_out_are_free_and_as_many_as_wanted(sizes: list[int], ended: int, wanted: int) -> None:
    taken: list[tuple[tuple[int, int], ...]] = []
    for size in sizes:
        slots = free_slots(taken, size)
        if slots is not None:
            taken.append(tuple(slots))
    taken = [slots for place, slots in enumerate(taken) if place != ended]
    used = {number for slots in taken for start, end in slots for number in range(start, end)}
    found = free_slots(taken, wanted)
    if found is None:
        assert SLOTS - len(used) < wanted
        return
    new = [number for start, end in found for number in range(start, end)]
    assert len(new) == len(set(new)) == wanted
    assert not used & set(new)
    assert max(new) < SLOTS


def test_the_published_vectors_hold() -> None:
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| `(.*?)` \| ([0-9.e-]+) \|$", GUIDE.read_text(), re.MULTILINE)
    assert len(rows) >= 6
    for salt, key, unit, expected in rows:
        assert draw(salt, key, unit) == float(expected)
    vectors = re.findall(r"^\| `([^`]*)` \| (\d+) \| `(\w+)` \|$", GUIDE.read_text(), re.MULTILINE)
    assert len(vectors) >= 5
    for unit, expected_slot, variant in vectors:
        assert slot(SALT, unit) == int(expected_slot)
        assert pick(SALT, VARIANTS, unit).variant_id == variant
