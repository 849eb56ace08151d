"""time.now: the time of day, anywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from stationmaster_server.agents.tools.tool import Arguments, Tool, ToolContext, ToolError, TypedTool


class NowArguments(Arguments):
    time_zone: str = Field("UTC", description="An IANA time zone, such as `Europe/Berlin`.", max_length=64)


def time_tools(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> tuple[Tool, ...]:
    """The tool, on this clock."""

    async def now(context: ToolContext, arguments: NowArguments) -> str:
        try:
            zone = ZoneInfo(arguments.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ToolError(f"there is no time zone {arguments.time_zone!r}") from None
        moment = clock().astimezone(zone)
        return f"{moment.isoformat(timespec='seconds')} ({moment:%A}, {arguments.time_zone})"

    return (TypedTool("time.now", "Tell the present date and time.", NowArguments, now),)
