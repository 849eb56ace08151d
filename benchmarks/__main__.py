"""`python -m benchmarks`: run the measures, print the table, write results.json and results.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from benchmarks import machine, report
from benchmarks.bench import PEERS, Bench, Plan
from benchmarks.goals import COMPARISON
from benchmarks.harness import Outcome, run
from benchmarks.measure import Measure
from benchmarks.measures.every import EVERY
from benchmarks.skip import Skipped

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Run what was asked for; the exit code is 1 when a measure failed to run (not when a goal was missed)."""
    options = _parser().parse_args()
    wanted = set(options.only.upper().split(",")) if options.only else {kind.id for kind in EVERY}
    if unknown := wanted - {kind.id for kind in EVERY}:
        print(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(k.id for k in EVERY)}")
        return 2
    seconds = options.seconds or (0.5 if options.quick else 2.0)
    rounds = options.rounds or (2 if options.quick else 5)
    folder = options.output or (None if options.quick else FOLDER)
    plan = Plan(rounds=rounds, seconds=seconds, scale=0.1 if options.quick else 1.0, peers=not options.no_peers)
    return asyncio.run(_run(plan, [kind for kind in EVERY if kind.id in wanted], folder))


async def _run(plan: Plan, measures: list[type[Measure]], folder: Path | None) -> int:
    where, commit = machine.describe(), machine.commit()
    async with Bench(plan) as bench:
        for name in _beside(measures) if plan.peers else ():
            try:
                await bench.find(name)
            except Skipped as why:
                print(f"{name} is skipped: {why}", flush=True)
        where["postgresql"] = await (await bench.postgres()).version()
        outcome = await run(bench, measures)
        where["peers"] = bench.versions
    return _finish(where, commit, outcome, folder, partial=len(measures) < len(EVERY))


def _beside(measures: list[type[Measure]]) -> list[str]:
    """The peers that the measures are set against."""
    against = {goal.against for kind in measures for goal in kind.goals}
    return [name for name in PEERS if name in against]


def _finish(where: dict[str, object], commit: str, outcome: Outcome, folder: Path | None, *, partial: bool) -> int:
    where |= {"load_average_after": machine.load_average(), "skipped": outcome.skipped, "failed": outcome.failed}
    found = report.results(where, commit, outcome.entries)
    if folder is not None:
        path = folder / "results.json"
        if partial and path.exists():
            found = report.merged(json.loads(path.read_text()), found)
        report.write(folder, found)
    print(report.text(found["measures"]))
    goals = [entry for entry in outcome.entries if entry["goal"] != COMPARISON]
    met = sum(entry["met"] for entry in goals)
    print(f"\n{met} of {len(goals)} goals met; written to {folder or 'no file'}")
    for name, why in {**outcome.skipped, **outcome.failed}.items():
        print(f"{name}: {why}")
    return 1 if outcome.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds: does it run, not how fast")
    parser.add_argument("--only", default="", metavar="S1,S2", help="these measures")
    parser.add_argument("--rounds", type=int, default=0, help="default 5")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each timed run; default 2")
    parser.add_argument("--no-peers", action="store_true", help="floors alone; installs nothing")
    parser.add_argument("--output", type=Path, help="folder of the results; default benchmarks/, and none when quick")
    return parser


if __name__ == "__main__":
    sys.exit(main())
