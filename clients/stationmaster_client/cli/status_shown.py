"""How an installation is, shown: its servers, what waits and runs, and what somebody should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stationmaster_client.cli.output import Output, age, clean, plain, size
from stationmaster_client.cli.services_shown import span
from stationmaster_client.names import last

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType
    from rich.text import Text
    from stationmaster.v1 import maintenance_pb2

_SERVERS = ("SERVER", "VERSION", "UP", "CPU#", "MEMORY#", "FILES#", "SOCKETS#", "THREADS#", "LOOP#")
_BAD_WORK = "DEAD"


def show_system(out: Output, status: maintenance_pb2.SystemStatus) -> None:
    """Print it for people."""
    out.details(counts(status))
    out.print()
    out.table(_SERVERS, map(server, status.servers), empty="No server has told of itself yet.", gap=1)
    for alert in status.alerts:
        out.print(told(alert))


def drawn(out: Output, status: maintenance_pb2.SystemStatus) -> RenderableType:
    """The same, to be drawn again and again."""
    from rich.console import Group
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    for name, value in counts(status):
        if value:
            facts.add_row(name, clean(value) if isinstance(value, str) else value)
    servers = out.grid(_SERVERS, map(server, status.servers), gap=1)
    return Group(facts, "", servers, *map(told, status.alerts))


def counts(status: maintenance_pb2.SystemStatus) -> Iterator[tuple[str, str | Text]]:
    """What there is of everything."""
    yield "sessions", _by_state(status.sessions)
    yield "work", _by_state(status.work)
    yield "waits since", span(status.oldest_due)
    yield "background", _by_state(status.background_services)
    yield "embedding", _encoders(status)
    yield "database", f"{size(status.database_bytes)}, {status.database_connections} connections"


def server(one: maintenance_pb2.ServerStatus) -> tuple[str, ...]:
    """A line of the table of servers."""
    uses = one.resources
    return (
        one.server,
        one.version,
        age(one.start_time).removesuffix(" ago"),
        _number(uses, "cpu_percent", "{:.0f} %"),
        size(int(uses.get("memory_resident_bytes", 0))) if uses else "",
        _number(uses, "open_files", "{:,.0f}"),
        _number(uses, "connections", "{:,.0f}"),
        _number(uses, "threads", "{:,.0f}"),
        f"{uses['event_loop_lag_seconds'] * 1000:.1f} ms" if "event_loop_lag_seconds" in uses else "",
    )


def told(alert: maintenance_pb2.Alert) -> Text:
    """What somebody should look at."""
    from rich.text import Text

    return Text.assemble(("! ", "bold red"), (clean(last(alert.subject)), "bold"), f": {clean(alert.text)}")


def _number(uses: Mapping[str, float], name: str, form: str) -> str:
    return form.format(uses[name]) if name in uses else ""


def _encoders(status: maintenance_pb2.SystemStatus) -> str:
    names = ", ".join(sorted({one.encoder for one in status.servers if one.encoder}))
    hashing = "hashing-" in names
    return f"{names} (knows words, and no synonyms: stationmaster-server models fetch)" if hashing else names


def _by_state(found: Mapping[str, int]) -> Text:
    from rich.text import Text

    text = Text()
    for state, count in sorted(found.items()):
        style = "red" if state in (_BAD_WORK, "UNHEALTHY") else ""
        word = "failed for good" if state == _BAD_WORK else plain(state, "")
        text.append(f"{', ' if text else ''}{count:,} {word}", style)
    return text
