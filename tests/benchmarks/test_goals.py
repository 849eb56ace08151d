"""Whether a goal is met is computed from the rounds, never typed in."""

from __future__ import annotations

import pytest

from benchmarks.bench import Bench, Plan
from benchmarks.goals import COMPARISON, ITSELF, OURS, Goal, beside
from benchmarks.measures.every import EVERY
from benchmarks.report import table

AT_LEAST = Goal("S1.echo", "rate", "echo", ">=", 0.4, "calls/s")
AT_MOST = Goal("S4.1", "p50", "agno", "<=", 0.6, "ms")
IN_ITSELF = Goal("S6", "bytes", ITSELF, "<=", 60, "bytes/token")


@pytest.mark.parametrize(
    ("goal", "ratio", "met"),
    [(AT_LEAST, 0.4, True), (AT_LEAST, 0.39, False), (AT_MOST, 0.6, True), (AT_MOST, 0.61, False)],
)
def test_a_goal_holds_up_to_its_bound(goal: Goal, ratio: float, met: bool) -> None:
    assert goal.met(ratio) is met


def test_the_median_of_the_ratios_decides() -> None:
    rounds = {OURS: [{"rate": r} for r in (10.0, 50.0, 60.0)], "echo": [{"rate": 100.0}] * 3}
    entry = AT_LEAST.judge("GetSession", rounds)
    assert entry == {
        "id": "S1.echo",
        "title": "GetSession",
        "goal": ">= 0.40 x echo",
        "against": "echo",
        "ratio": {"median": 0.5, "min": 0.1, "max": 0.6},
        "ours": 50.0,
        "theirs": 100.0,
        "unit": "calls/s",
        "rounds": 3,
        "met": True,
    }


def test_a_goal_in_itself_is_judged_by_our_figure() -> None:
    entry = IN_ITSELF.judge("bytes", {OURS: [{"bytes": 70.0}]})
    assert entry is not None
    assert (entry["ratio"]["median"], entry["goal"], entry["met"]) == (70.0, "<= 60 bytes/token", False)


def test_a_side_that_did_not_run_leaves_no_entry() -> None:
    assert AT_MOST.judge("first token", {OURS: [{"p50": 1.0}]}) is None


def test_a_round_that_one_side_missed_does_not_count() -> None:
    entry = AT_LEAST.judge("", {OURS: [{"rate": 1.0}, {"rate": 9.0}], "echo": [{"rate": 2.0}]})
    assert entry is not None
    assert (entry["rounds"], entry["ratio"]["median"]) == (1, 0.5)


def test_a_peer_without_a_goal_is_reported_and_judges_nothing() -> None:
    entry = beside("S3.langgraph", "rate", "langgraph", "cycles/s").judge(
        "cycle", {OURS: [{"rate": 1.0}], "langgraph": [{"rate": 4.0}]}
    )
    assert entry is not None
    assert (entry["goal"], entry["ratio"]["median"], entry["theirs"], entry["met"]) == (COMPARISON, 0.25, 4.0, True)
    assert table([entry])[0][-1] == "-"


def test_ids_of_goals_are_unique_and_begin_with_their_measure() -> None:
    ids = [goal.id for measure in EVERY for goal in measure.goals]
    assert len(ids) == len(set(ids))
    assert all(goal.id.partition(".")[0] == measure.id for measure in EVERY for goal in measure.goals)


def test_every_goal_is_against_a_side_that_its_measure_runs() -> None:
    for measure in EVERY:
        sides = measure(Bench(Plan())).sides()
        assert OURS in sides
        assert {goal.against for goal in measure.goals} <= {*sides, ITSELF}
