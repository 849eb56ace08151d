"""What a run leaves behind: results.json for programs, a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import COMPARISON

_HEAD = ("id", "measure", "goal", "ratio: median [min .. max]", "ours", "theirs", "unit", "met")


def results(machine: Mapping[str, Any], commit: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole of results.json."""
    return {"machine": dict(machine), "commit": commit, "measures": [dict(entry) for entry in entries]}


def merged(old: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """`new`, and what `old` has of measures that were not run this time. Only of the same commit and machine."""
    if not old or old.get("commit") != new["commit"] or old["machine"].get("cpu") != new["machine"].get("cpu"):
        return new
    run = {entry["id"] for entry in new["measures"]}
    kept = [entry for entry in old["measures"] if entry["id"] not in run]
    return {**new, "measures": sorted([*kept, *new["measures"]], key=lambda entry: str(entry["id"]))}


def table(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows, without the head."""
    return [
        (
            entry["id"],
            entry["title"],
            entry["goal"],
            "{median} [{min} .. {max}]".format(**{key: number(value) for key, value in entry["ratio"].items()}),
            number(entry["ours"]),
            number(entry["theirs"]),
            entry["unit"],
            _verdict(entry),
        )
        for entry in entries
    ]


def _verdict(entry: Mapping[str, Any]) -> str:
    if entry["goal"] == COMPARISON:
        return "-"
    return "yes" if entry["met"] else "NO"


def number(value: float) -> str:
    """Three digits that matter."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The table for a terminal."""
    rows = [_HEAD, *table(entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The table for a reader of the repository."""
    rows = [_HEAD, ("---",) * len(_HEAD), *table(found["measures"])]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    machine = found["machine"]
    head = [
        "# Results",
        "",
        "Written by `make bench`; `docs/benchmarks.md` tells how to read it.",
        "",
        f"Commit `{found['commit']}`, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.",
        "",
    ]
    notes = [f"- {name}: skipped, {why}" for name, why in machine.get("skipped", {}).items()]
    notes += [f"- {name}: failed, {why}" for name, why in machine.get("failed", {}).items()]
    return "\n".join([*head, *lines, *(["", *notes] if notes else [])]) + "\n"


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (folder / "results.md").write_text(markdown(found))
