"""The shape of results.json, and tables that say what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.goals import OURS, Goal


def entry(goal_id: str, ours: float = 30.0) -> dict[str, Any]:
    goal = Goal(goal_id, "rate", "echo", ">=", 0.4, "calls/s")
    judged = goal.judge("a measure", {OURS: [{"rate": ours}] * 5, "echo": [{"rate": 100.0}] * 5})
    assert judged is not None
    return judged


def test_results_have_the_shape_that_readers_rely_on(tmp_path: Path) -> None:
    report.write(tmp_path, report.results(machine.describe(), "abc", [entry("S1.echo")]))
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == ["machine", "commit", "measures"]
    [measure] = found["measures"]
    assert list(measure) == ["id", "title", "goal", "against", "ratio", "ours", "theirs", "unit", "rounds", "met"]
    assert list(measure["ratio"]) == ["median", "min", "max"]
    assert measure["met"] is False


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    assert platform.node() not in json.dumps(machine.describe())


def test_a_partial_run_keeps_what_the_same_commit_measured_before() -> None:
    where = {"cpu": "x"}
    old = report.results(where, "abc", [entry("S1.echo"), entry("T1")])
    merged = report.merged(old, report.results(where, "abc", [entry("T1", ours=90.0)]))
    assert [(each["id"], each["ours"]) for each in merged["measures"]] == [("S1.echo", 30.0), ("T1", 90.0)]


def test_a_partial_run_of_another_commit_keeps_nothing() -> None:
    old = report.results({"cpu": "x"}, "abc", [entry("S1.echo")])
    merged = report.merged(old, report.results({"cpu": "x"}, "def", [entry("T1")]))
    assert [each["id"] for each in merged["measures"]] == ["T1"]


def test_the_table_shows_a_missed_goal_as_missed() -> None:
    [row] = report.table([entry("S1.echo")])
    assert row == ("S1.echo", "a measure", ">= 0.40 x echo", "0.3 [0.3 .. 0.3]", "30", "100", "calls/s", "NO")


def test_markdown_names_what_was_skipped() -> None:
    found = report.results({**machine.describe(), "skipped": {"S2 agno": "no network"}}, "abc", [entry("S1.echo")])
    text = report.markdown(found)
    assert "S2 agno: skipped, no network" in text
    assert "| S1.echo | a measure |" in text
