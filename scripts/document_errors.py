"""Write docs/guides/errors.md from the protos: every reason, and which methods name it; `--check` compares."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from stationmaster_client.cli.errors import EXIT_CODES, HINTS, ExitCode

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos/stationmaster/v1"
TARGET = ROOT / "docs/guides/errors.md"
EVERYWHERE = {
    "CREDENTIALS_MISSING",
    "CREDENTIALS_INVALID",
    "CREDENTIALS_EXPIRED",
    "CREDENTIALS_REVOKED",
    "USER_DISABLED",
    "SCOPE_MISSING",
    "RATE_LIMITED",
    "SERVER_OVERLOADED",
    "SERVER_STOPPING",
    "DATABASE_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "MESSAGE_TOO_LARGE",
    "INTERNAL",
    "CANCELLED",
    "UNKNOWN_METHOD",
    "INVALID_FIELD",
    "INVALID_NAME",
    "QUOTA_EXCEEDED",
}
"""What any method may answer, so that their comments do not repeat it."""
INTRODUCTION = """# Errors

Made by `make generate` from the protos; do not edit.

Every error is a `google.rpc.Status` whose details carry an `ErrorInfo` of the domain `stationmaster`; its `reason` is
one of these, for programs; the message is for people and says what to do. INVALID_ARGUMENT names the fields
(`BadRequest`), FAILED_PRECONDITION what stands in the way (`PreconditionFailure`), RESOURCE_EXHAUSTED the limit
(`QuotaFailure`), NOT_FOUND and ALREADY_EXISTS the resource (`ResourceInfo`). `RetryInfo` says when the same call may
succeed. `RequestInfo` has the request id that stands in the server's log.

The command line prints the message, the reason and the request id, and ends with the exit code of the status.
"""

_REASON = re.compile(r"((?:  // .*\n)+)  ERROR_REASON_(\w+) = (\d+);")
_METHOD = re.compile(r"((?:  // .*\n|  //\n)+)  rpc (\w+)\(")
_NAMED = re.compile(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b|\bINTERNAL\b")


def main() -> int:
    """Write the guide, or compare it."""
    text = "".join(guide())
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("docs/guides/errors.md is not what the protos say: run make generate", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


def guide() -> Iterator[str]:
    """The guide: a table for each status."""
    yield INTRODUCTION
    methods = methods_by_reason()
    by_status: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for reason, comment in reasons():
        status, _, meaning = comment.partition(". ")
        if status.isupper():
            by_status[status].append((reason, meaning))
        else:  # what no call answers, but executions tell
            by_status["In executions"].append((reason, comment))
    for status, found in sorted(by_status.items()):
        yield f"\n## {status}\n\n"
        if status.isupper():
            yield f"Exit code {EXIT_CODES.get(status, ExitCode.UNEXPECTED):d}.\n\n"
        yield "| reason | meaning | methods |\n| --- | --- | --- |\n"
        for reason, meaning in found:
            hint = f" {HINTS[reason]}" if reason in HINTS else ""
            yield f"| `{reason}` | {meaning}{hint} | {_told(reason, methods[reason])} |\n"


def reasons() -> Iterator[tuple[str, str]]:
    """Each reason with its comment, in one line."""
    text = (PROTOS / "error_reason.proto").read_text()
    for comment, name, number in _REASON.findall(text):
        if number != "0":
            yield name, _one_line(comment)


def methods_by_reason() -> dict[str, list[str]]:
    """The methods whose comments name a reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PROTOS.glob("*.proto")):
        for comment, method in _METHOD.findall(path.read_text()):
            for reason in sorted(set(_NAMED.findall(comment.partition("Errors:")[2]))):
                found[reason].append(method)
    return found


def _told(reason: str, methods: list[str]) -> str:
    if reason in EVERYWHERE:
        return "any"
    return ", ".join(methods) or "none by itself"


def _one_line(comment: str) -> str:
    return " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
