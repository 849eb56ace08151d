"""Reports as executions make them, for tests and for looking at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stationmaster_server.tasks.reports.model import (
    Attempt,
    Entry,
    ModelUsage,
    Progress,
    ProgressMessage,
    Report,
    Section,
    Span,
    SpanKind,
    Table,
    ToolCall,
    Totals,
)

START = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
EXECUTION = "executions/019ac0de-0000-7000-8000-000000000001"
ANSWER = (Path(__file__).parent / "answer.md").read_text()
SCRIPTS = (Path(__file__).parent / "scripts.md").read_text()
"""Many scripts, emoji, and a very long word."""


def after(seconds: float) -> datetime:
    """A moment of the execution."""
    return START + timedelta(seconds=seconds)


def succeeded() -> Report:
    """A prompt task that succeeded at its second attempt."""
    return Report(
        title="Find conflicts in the winter timetable",
        task="tasks/timetable-check",
        execution=EXECUTION,
        kind="prompt",
        state="SUCCEEDED",
        owner="users/019ac0de-0000-7000-8000-00000000000a",
        created_at=START,
        started_at=after(3.2),
        finished_at=after(95),
        attempts=(
            Attempt(1, after(3.2), after(21), "FAILED", "MODEL_UNAVAILABLE: the provider answered 529 (overloaded)"),
            Attempt(2, after(31), after(95), "SUCCEEDED"),
        ),
        spans=_spans(),
        conversation=_conversation(),
        totals=Totals(
            messages=4,
            tool_calls=3,
            models=(
                ModelUsage("anthropic:claude-sonnet-5", 5, 48_211, 3_020, 189_933),
                ModelUsage("anthropic:claude-haiku-5", 2, 9_120, 411, 8_940),
            ),
        ),
        progress=Progress(
            1.0,
            {"trains checked": 1_284, "conflicts": 3},
            (ProgressMessage(after(5), "reading the timetable"), ProgressMessage(after(60), "1,284 trains checked")),
        ),
        sections=(_files(),),
        notes=("The summary was made from the last 50 messages.",),
    )


def _spans() -> tuple[Span, ...]:
    sonnet, haiku = "anthropic:claude-sonnet-5", "anthropic:claude-haiku-5"
    return (
        Span(SpanKind.QUEUED, "", START, after(3.2)),
        Span(SpanKind.ATTEMPT, "1", after(3.2), after(21), failed=True),
        Span(SpanKind.QUEUED, "retry", after(21), after(31)),
        Span(SpanKind.ATTEMPT, "2", after(31), after(95)),
        Span(SpanKind.MODEL, sonnet, after(3.5), after(21), failed=True),
        Span(SpanKind.MODEL, sonnet, after(31.2), after(44)),
        Span(SpanKind.MODEL, sonnet, after(58), after(71)),
        Span(SpanKind.MODEL, sonnet, after(74), after(94.5)),
        Span(SpanKind.MODEL, haiku, after(46), after(49)),
        Span(SpanKind.MODEL, haiku, after(47), after(55)),
        Span(SpanKind.TOOL, "files.read", after(44.1), after(44.4)),
        Span(SpanKind.TOOL, "conflicts", after(44.1), after(57.9)),
        Span(SpanKind.TOOL, "files.write", after(71.2), after(73.8), failed=True),
    )


def _conversation() -> tuple[Entry, ...]:
    sonnet = "anthropic:claude-sonnet-5"
    arguments = '{\n  "path": "timetable/winter.csv",\n  "lines": [1, 400]\n}'
    return (
        Entry("system", "You check timetables. Be brief, and name trains by their numbers.", START),
        Entry("user", "Which trains are in each other's way? Write the result to `conflicts.md`.", after(3)),
        Entry(
            "assistant",
            "I shall read the timetable first.",
            after(44),
            sonnet,
            12_040,
            310,
            40_770,
            timedelta(seconds=12.8),
            (
                ToolCall("files.read", arguments, "train,platform,at\n4711,4,09:42\n0815,4,09:42", "SUCCEEDED"),
                ToolCall(
                    "conflicts",
                    '{"day": "2026-12-13"}',
                    '{"conflicts": 3}',
                    "SUCCEEDED",
                    after(57.9) - after(44.1),
                ),
                ToolCall(
                    "files.write",
                    '{"path": "conflicts.md"}',
                    "permission denied: the workspace is read-only",
                    "FAILED",
                    timedelta(seconds=2.6),
                ),
            ),
        ),
        Entry("assistant", ANSWER, after(94.5), sonnet, 36_171, 2_710, 149_163, timedelta(seconds=20.5)),
        Entry("assistant", SCRIPTS, after(95), sonnet, note="interrupted"),
    )


def _files() -> Section:
    rows = tuple((f"export/part-{n:04}.jsonl", f"{n * 12_345:,}", f"{n * 1.7:.1f} MiB") for n in range(1, 6))
    return Section(
        "Exported files",
        "Everything lies in the workspace, as *JSON lines*.",
        Table(("File", "Rows", "Size"), rows, frozenset({1, 2})),
    )


def failed() -> Report:
    """A crawl that died."""
    pages = tuple(
        (f"https://example.com/{'deep/' * (n % 5)}page-{n}.html", "200" if n % 7 else "404", f"{n * 3.1:.1f} KiB")
        for n in range(60)
    )
    error = "TimeoutError: the page https://example.com/slow did not answer within 30 s\n  at crawl, page 61 of 400"
    return replace(
        succeeded(),
        title="Crawl of the documentation",
        task=None,
        kind="crawl",
        state="DEAD",
        reason="The task failed three times; the last error is above.",
        attempts=tuple(Attempt(n, after(40 * n), after(40 * n + 31), "FAILED", error) for n in (1, 2, 3)),
        spans=tuple(Span(SpanKind.ATTEMPT, str(n), after(40 * n), after(40 * n + 31), failed=True) for n in (1, 2, 3)),
        started_at=after(40),
        finished_at=after(151),
        conversation=(),
        totals=Totals(),
        progress=Progress(0.15, {"pages": 60, "failed": 9}),
        sections=(Section("Crawled pages", "", Table(("Page", "Status", "Size"), pages, frozenset({1, 2}))),),
        notes=(),
    )
