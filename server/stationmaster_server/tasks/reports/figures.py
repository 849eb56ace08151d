"""Figures as people read them, and the tables of figures that every format shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from stationmaster_server.tasks.reports.model import Attempt, Entry, Report, Table, ToolCall

NONE = "\N{EN DASH}"
SHORT = 24
"""Characters of a short cell."""
_NUMBERS = frozenset({1, 2, 3, 4})


def moment(at: datetime | None) -> str:
    """`2026-01-31 12:00:00 UTC`."""
    return NONE if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(at: datetime | None) -> str:
    """`12:00:00`."""
    return "" if at is None else at.astimezone(UTC).strftime("%H:%M:%S")


def span(length: timedelta | None) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`, `3 d 04 h`."""
    if length is None:
        return NONE
    seconds = max(0.0, length.total_seconds())
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def size(number_bytes: int) -> str:
    """`512 B`, `1.5 KiB`, `3.2 MiB`."""
    if number_bytes < 1024:
        return f"{number_bytes} B"
    kib = number_bytes / 1024
    return f"{kib:,.1f} KiB" if kib < 1024 else f"{kib / 1024:,.1f} MiB"


def cost(micros: int) -> str:
    """`$1.25`; what is less than ten cents with more places."""
    dollars = micros / 1_000_000
    return f"${dollars:,.2f}" if micros == 0 or abs(micros) >= 100_000 else f"${dollars:.6f}".rstrip("0")


def took(report: Report) -> timedelta | None:
    """How long the execution took from its start to its end."""
    if report.started_at is None or report.finished_at is None:
        return None
    return report.finished_at - report.started_at


def headline(report: Report) -> list[tuple[str, str]]:
    """The figures that one wants first: of a conversation its costs, of other work its first counters."""
    totals = report.totals
    found = [("Duration", span(took(report)))]
    if not (totals.messages or totals.models or report.conversation):
        return found + counters(report)[:4]
    return [
        *found,
        ("Messages", count(totals.messages)),
        ("Tool calls", count(totals.tool_calls)),
        ("Tokens", count(totals.input_tokens + totals.output_tokens)),
        ("Cost", cost(totals.cost_micros)),
    ]


def facts(report: Report) -> list[tuple[str, str]]:
    """What the report is about."""
    found = [
        ("Execution", report.execution),
        ("Task", report.task or "none: it was submitted by itself"),
        ("Owner", f"{report.owner_name} ({report.owner})" if report.owner_name else report.owner),
        ("Created", moment(report.created_at)),
        ("Started", moment(report.started_at)),
        ("Finished", moment(report.finished_at)),
    ]
    if len(report.attempts) > 1:
        found.append(("Attempts", count(len(report.attempts))))
    return found


def errors(report: Report) -> list[tuple[str, str]]:
    """What went wrong: each attempt's error with its name, and why the whole failed where that says something else."""
    found = [(_attempt(attempt), attempt.error) for attempt in report.attempts if attempt.error]
    if report.reason and (report.failed or report.finished_at is None) and report.reason not in {e for _, e in found}:
        found.append(("Reason", report.reason))
    return found


def _attempt(attempt: Attempt) -> str:
    when = f", {moment(attempt.finished_at)}" if attempt.finished_at else ""
    return f"Attempt {attempt.number}{when}"


def usage(report: Report) -> Table | None:
    """Tokens and cost by model."""
    models = report.totals.models
    if not models:
        return None
    rows = [
        (each.model, count(each.calls), count(each.input_tokens), count(each.output_tokens), cost(each.cost_micros))
        for each in models
    ]
    if len(models) > 1:
        totals, calls = report.totals, sum(each.calls for each in models)
        sums = (count(calls), count(totals.input_tokens), count(totals.output_tokens), cost(totals.cost_micros))
        rows.append(("All", *sums))
    return Table(("Model", "Calls", "Tokens in", "Tokens out", "Cost"), tuple(rows), _NUMBERS)


def short_columns(table: Table) -> frozenset[int]:
    """The columns of which every cell is short: they are as wide as that, and others share what they leave."""
    rows = (table.columns, *table.rows)
    return frozenset(at for at in range(len(table.columns)) if all(len(row[at]) <= SHORT for row in rows))


def counters(report: Report) -> list[tuple[str, str]]:
    """How far it came, and what it counted. Of what failed at its end "100 %" would say otherwise."""
    progress = report.progress
    found = [(called(name), count(number)) for name, number in progress.counters.items()]
    if progress.fraction is None or (report.failed and progress.fraction >= 1):
        return found
    return [("Done", f"{100 * min(1.0, max(0.0, progress.fraction)):.0f} %"), *found]


def byline(entry: Entry) -> str:
    """What is said of a message beside who wrote it."""
    parts: Sequence[str] = (
        clock(entry.created_at),
        entry.model,
        f"{count(entry.input_tokens)} → {count(entry.output_tokens)} tokens" if _used(entry) else "",
        cost(entry.cost_micros) if entry.cost_micros else "",
        span(entry.latency) if entry.latency is not None else "",
        entry.note,
    )
    return " · ".join(part for part in parts if part)


def _used(entry: Entry) -> bool:
    return bool(entry.input_tokens or entry.output_tokens)


def call_byline(call: ToolCall) -> str:
    """What is said of a tool call beside its name."""
    parts = (call.state.lower().replace("_", " "), span(call.duration) if call.duration is not None else "")
    return " · ".join(part for part in parts if part)


def called(name: str) -> str:
    """A word of a program's as one of a sentence's: `IN_PROGRESS` as `In progress`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:].lower() if words.isupper() else words[:1].upper() + words[1:]
