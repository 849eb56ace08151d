"""Statistics that stay valid while people look."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import isclose

import pytest
from stationmaster_server.prompts.statistics import (
    MISMATCH_ALPHA,
    Sample,
    difference,
    mean_interval,
    mismatch_p_value,
    success_sample,
)

Draw = Callable[[random.Random], float]

ALPHA = 0.05
RUNS, LOOKS, BETWEEN = 1_000, 40, 100


class Running:
    """A mean and a variance, kept as outcomes come."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, outcome: float) -> None:
        self.count += 1
        before = outcome - self.mean
        self.mean += before / self.count
        self.squares += before * (outcome - self.mean)

    @property
    def sample(self) -> Sample:
        return Sample(self.count, self.mean, self.squares / (self.count - 1))


def alarms_of_successes(chance: random.Random, rate: float) -> bool:
    """One run without an effect, looked at every 100 outcomes: whether it ever says that there is one."""
    counts, successes = [0, 0], [0, 0]
    for _ in range(LOOKS):
        for arm in (0, 1):
            counts[arm] += BETWEEN // 2
            successes[arm] += sum(chance.random() < rate for _ in range(BETWEEN // 2))
        if min(counts) < 100:
            continue
        first, second = (success_sample(count, hit) for count, hit in zip(counts, successes, strict=True))
        if difference(first, second, ALPHA).p_value <= ALPHA:
            return True
    return False


@pytest.mark.parametrize("rate", [0.5, 0.05])
def test_under_no_effect_peeking_raises_no_more_false_alarms_than_stated(rate: float) -> None:
    chance = random.Random(20261126)
    alarms = sum(alarms_of_successes(chance, rate) for _ in range(RUNS))
    assert alarms <= ALPHA * RUNS


def test_the_same_holds_for_scores_latencies_and_cost_which_are_skewed() -> None:
    chance, alarms = random.Random(7), 0
    for _ in range(RUNS):
        arms = (Running(), Running())
        for look in range(LOOKS):
            for arm in arms:
                for _ in range(BETWEEN // 2):
                    arm.add(chance.expovariate(1.0))
            if look and difference(arms[0].sample, arms[1].sample, ALPHA).p_value <= ALPHA:
                alarms += 1
                break
    assert alarms <= ALPHA * RUNS


def rare(chance: random.Random) -> float:
    return float(chance.random() < 0.03)


def calm(chance: random.Random) -> float:
    return chance.gauss(0.0, 1.0)


def wild(chance: random.Random) -> float:
    return chance.gauss(0.0, 3.0)


@pytest.mark.parametrize("draws", [(rare, rare), (calm, wild), (wild, calm)])
def test_the_same_holds_where_one_variant_has_nine_tenths(draws: tuple[Draw, Draw]) -> None:
    chance, alarms, runs = random.Random(7), 0, 300
    for _ in range(runs):
        arms = (Running(), Running())
        for _ in range(60):
            for arm, share, draw in zip(arms, (90, 10), draws, strict=True):
                for _ in range(share):
                    arm.add(draw(chance))
            if arms[1].count >= 100 and difference(arms[0].sample, arms[1].sample, ALPHA).p_value <= ALPHA:
                alarms += 1
                break
    assert alarms <= ALPHA * runs


def even(chance: random.Random) -> float:
    return float(chance.random() < 0.5)


@pytest.mark.parametrize("draw", [even, rare, calm])
def test_the_same_holds_from_the_least_minimum_on_at_every_outcome(draw: Draw) -> None:
    chance, alarms, runs = random.Random(7), 0, 300
    for _ in range(runs):
        arms = (Running(), Running())
        for number in range(1, 201):
            for arm in arms:
                arm.add(draw(chance))
            if number >= 30 and difference(arms[0].sample, arms[1].sample, ALPHA).p_value <= ALPHA:
                alarms += 1
                break
    assert alarms <= ALPHA * runs


def test_an_effect_is_found() -> None:
    chance, found = random.Random(1), 0
    for _ in range(100):
        hits = [sum(chance.random() < rate for _ in range(3_000)) for rate in (0.5, 0.6)]
        interval = difference(success_sample(3_000, hits[0]), success_sample(3_000, hits[1]), ALPHA)
        found += interval.p_value <= ALPHA
        assert (interval.p_value <= ALPHA) is (interval.lower > 0 or interval.upper < 0)
    assert found >= 95


def test_an_interval_holds_at_all_looks_together() -> None:
    chance, missed = random.Random(3), 0
    for _ in range(300):
        arm = Running()
        for look in range(30):
            for _ in range(100):
                arm.add(chance.gauss(2.0, 1.0))
            interval = mean_interval(arm.sample, ALPHA)
            if look and not interval.lower <= 2.0 <= interval.upper:
                missed += 1
                break
    assert missed <= ALPHA * 300


def test_the_p_value_and_the_interval_say_the_same() -> None:
    for gap in (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1):
        interval = difference(Sample(2_000, 0.4, 0.24), Sample(1_000, 0.4 + gap, 0.25), ALPHA)
        assert (interval.p_value <= ALPHA) is (interval.lower > 0)
        assert isclose(interval.upper - interval.estimate, interval.estimate - interval.lower)


def test_what_was_not_measured_says_nothing() -> None:
    nothing = Sample(0, 0.0, 0.0)
    assert difference(nothing, Sample(100, 1.0, 1.0), ALPHA).p_value == 1
    assert mean_interval(nothing, ALPHA).p_value == 1
    assert difference(Sample(50, 0.0, 0.0), Sample(50, 1.0, 0.0), ALPHA).p_value == 1  # all alike: by chance?


@pytest.mark.parametrize(
    ("counts", "weights", "flagged"),
    [
        ([5_000, 5_000], [1, 1], False),
        ([5_100, 4_900], [1, 1], False),
        ([5_300, 4_700], [1, 1], True),
        ([50_000, 51_000], [1, 1], False),
        ([50_000, 52_000], [1, 1], True),
        ([9_000, 1_000], [9, 1], False),
        ([8_700, 1_300], [9, 1], True),
        ([3_000, 3_000, 4_000], [3, 3, 4], False),
        ([3_000, 3_400, 4_000], [3, 3, 4], True),
        ([0, 0], [1, 1], False),
        ([3, 0], [1, 1], False),
    ],
)
def test_a_planted_mismatch_is_flagged(counts: list[int], weights: list[float], flagged: bool) -> None:
    assert (mismatch_p_value(counts, weights) <= MISMATCH_ALPHA) is flagged


def test_a_right_sample_ratio_is_hardly_ever_called_a_mismatch_however_often_one_looks() -> None:
    chance, alarms = random.Random(5), 0
    for _ in range(400):
        counts = [0, 0]
        for _ in range(50):
            first = sum(chance.random() < 0.3 for _ in range(100))
            counts = [counts[0] + first, counts[1] + 100 - first]
            if mismatch_p_value(counts, [3, 7]) <= 0.01:
                alarms += 1
                break
    assert alarms <= 0.01 * 400 + 4  # the rate, and two standard deviations of counting it
