"""The audit of a whole graph finds every cycle that was planted, and no other."""

from __future__ import annotations

import itertools
import random

import pytest
from stationmaster_server.tasks.cycle_audit import find_cycles

Edge = tuple[str, str]


def without_cycles(chance: random.Random, tasks: int, edges: int) -> set[Edge]:
    """A random graph whose edges all lead to later tasks."""
    found: set[Edge] = set()
    while len(found) < edges:
        one, other = sorted(chance.sample(range(tasks), 2))
        found.add((f"t{one:06}", f"t{other:06}"))
    return found


def ring(names: list[str]) -> list[Edge]:
    return list(zip(names, [*names[1:], names[0]], strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_every_planted_cycle_is_found_and_only_those(seed: int) -> None:
    chance = random.Random(seed)
    edges = without_cycles(chance, 2_000, 5_000)
    assert find_cycles(sorted(edges)) == []
    planted = [[f"c{number:03}-{place}" for place in range(chance.randint(1, 9))] for number in range(40)]
    for cycle in planted:
        edges |= set(ring(cycle))
        # Something depends on it, and it on something: neither is in the cycle.
        edges |= {("t000000", chance.choice(cycle)), (chance.choice(cycle), "t001999")}
    shuffled = chance.sample(sorted(edges), len(edges))
    assert sorted(find_cycles(shuffled)) == [[*cycle, cycle[0]] for cycle in planted]


def test_cycles_that_share_a_task_or_an_edge_are_each_found() -> None:
    edges = [*ring(["a", "b", "c"]), *ring(["a", "x", "y", "z"]), ("b", "a"), ("d", "a"), ("c", "e")]
    assert sorted(find_cycles(edges)) == [["a", "b", "a"], ["a", "b", "c", "a"], ["a", "x", "y", "z", "a"]]


def test_a_long_chain_and_a_great_knot_end_soon() -> None:
    chain = [f"n{number:06}" for number in range(100_000)]
    assert find_cycles(list(itertools.pairwise(chain))) == []
    assert find_cycles(ring(chain[:300])) == [[*chain[:300], chain[0]]]
    knot = [(one, other) for one in chain[:60] for other in chain[:60] if one != other]
    found = find_cycles(knot)
    assert len(found) == 100
    assert all(cycle[0] == cycle[-1] and len(cycle) == 3 for cycle in found)


def test_a_hundred_thousand_edges_are_audited() -> None:
    chance = random.Random(7)
    edges = without_cycles(chance, 30_000, 100_000)
    planted = ["z1", "z2", "z3"]
    assert find_cycles([*edges, *ring(planted)]) == [["z1", "z2", "z3", "z1"]]
