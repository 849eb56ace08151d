"""Runs measures: in each round every side once, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import Bench
from benchmarks.goals import Figures
from benchmarks.measure import Measure
from benchmarks.skip import Skipped


@dataclass
class Outcome:
    """What a run gave."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a side did not run, by measure and side."""
    failed: dict[str, str] = field(default_factory=dict)
    """What went wrong, by measure."""


async def run(bench: Bench, measures: Iterable[type[Measure]]) -> Outcome:
    """Run them all; one that fails does not stop the others."""
    outcome = Outcome()
    for kind in measures:
        began = time.monotonic()
        try:
            rounds = await _rounds(kind(bench), outcome.skipped)
            judged = [goal.judge(kind.title, rounds) for goal in kind.goals]
        except Exception as error:  # noqa: BLE001 - said, kept, and the exit code tells
            traceback.print_exc()
            outcome.failed[kind.id] = f"{type(error).__name__}: {error}"[:300]
            continue
        outcome.entries += [entry for entry in judged if entry is not None]
        _say(f"{kind.id}: {time.monotonic() - began:.0f} s")
    return outcome


async def _rounds(measure: Measure, skipped: dict[str, str]) -> dict[str, list[Figures]]:
    rounds: dict[str, list[Figures]] = {}
    left = dict(measure.sides())
    try:
        await measure.prepare()
        for number in range(1, measure.bench.plan.rounds + 1):
            for name, side in list(left.items()):
                try:
                    figures = await side()
                except Skipped as why:
                    skipped[f"{measure.id} {name}"] = str(why)
                    _say(f"{measure.id}: {name} is skipped: {why}")
                    del left[name]
                    continue
                rounds.setdefault(name, []).append(figures)
                shown = "  ".join(f"{key}={value:,.4g}" for key, value in figures.items())
                _say(f"{measure.id} {number}/{measure.bench.plan.rounds} {name}: {shown}")
    finally:
        await measure.close()
    return rounds


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
