"""stationmaster quota: how much a user or an organization may use."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from stationmaster.v1 import identity_pb2

app = group("How much may be used, and is.")

Owner = Annotated[
    str, typer.Argument(help="A user (name, email, me) or organization (yours) or organizations/ID.", metavar="OWNER")
]
_UNLIMITED = "none"
# What a quota limits, and the field of its usage that counts it.
_LIMITS = {
    "max_concurrent_sessions": ("sessions at once", "concurrent_sessions"),
    "max_calls_per_hour": ("calls an hour", "calls_this_hour"),
    "max_cost_micros_per_day": ("dollars a day", "cost_micros_today"),
    "max_tokens_per_day": ("tokens a day", "tokens_today"),
    "max_tool_calls_per_day": ("tool calls a day", "tool_calls_today"),
    "max_running_time_per_day": ("running seconds a day", "running_time_today"),
    "max_storage_bytes": ("bytes stored", "storage_bytes"),
    "max_users": ("users", "users"),
}
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def _option(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", metavar=f"N|{_UNLIMITED}", help=text)


@command(app, "show", also="get")
async def get(run: Run, owner: Owner = "me") -> None:
    """Show a quota and how much of it is used."""
    name = await resolve.owner(run.client, owner)
    quota = await run.client.quotas.get(name)
    if run.out.as_json:
        run.out.json(quota)
    else:
        _show(run, quota, await run.client.quotas.usage(name))


@command(app, "usage")
async def usage(run: Run, owner: Owner = "me") -> None:
    """Show how much is used."""
    name = await resolve.owner(run.client, owner)
    used = await run.client.quotas.usage(name)
    if run.out.as_json:
        run.out.json(used)
    else:
        _show(run, await run.client.quotas.get(name), used)


@command(app, "set")
async def set_quota(
    run: Run,
    owner: Owner,
    sessions: Annotated[str, _option("sessions", "Sessions at once.")] = "",
    calls: Annotated[str, _option("calls", "Calls in a clock hour (UTC).")] = "",
    dollars: Annotated[str, _option("dollars", "Cost in a day (UTC).")] = "",
    tokens: Annotated[str, _option("tokens", "Tokens, input and output, in a day (UTC).")] = "",
    tool_calls: Annotated[str, _option("tool-calls", "Tool calls in a day (UTC).")] = "",
    seconds: Annotated[str, _option("seconds", "Running time of turns in a day (UTC), added up.")] = "",
    storage: Annotated[str, _option("storage", "Bytes stored, as 500MiB or 10GiB.")] = "",
    users: Annotated[str, _option("users", "Users; of organizations only.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
) -> None:
    """Set limits; those that are not named stay, and 'none' lifts one."""
    from stationmaster_client.identity import quota_name

    name = await resolve.owner(run.client, owner)
    quota = await run.client.quotas.get(name)
    quota.name = quota_name(name)
    wanted = dict(zip(_LIMITS, (sessions, calls, dollars, tokens, tool_calls, seconds, storage, users), strict=True))
    paths = [field for field, text in wanted.items() if text]
    if not paths:
        raise CommandError("nothing to set: name a limit, as --sessions or --dollars (see --help)")
    for field in paths:
        if wanted[field] == _UNLIMITED:
            _by_name(quota).ClearField(field)
        else:
            _set(quota, field, wanted[field])
    changed = await run.client.quotas.set(quota, paths, validate_only=dry_run)
    if run.out.as_json:
        run.out.json(changed)
    else:
        _show(run, changed, await run.client.quotas.usage(name))


def _by_name(message: Message) -> Message:
    """The message as its base class, whose fields are named by any text."""
    return message


def _set(quota: identity_pb2.Quota, field: str, text: str) -> None:
    try:
        if field == "max_running_time_per_day":
            quota.max_running_time_per_day.FromTimedelta(timedelta(seconds=float(text)))
        elif field == "max_storage_bytes":
            quota.max_storage_bytes = _bytes(text)
        else:
            setattr(quota, field, round(float(text) * 1_000_000) if "micros" in field else int(text))
    except (ValueError, OverflowError):
        wanted = "no size: write bytes, or 500MiB, 10GiB, 1TiB" if field == "max_storage_bytes" else "no number"
        raise CommandError(f"{text!r} is {wanted}; 'none' lifts this limit") from None


def _bytes(text: str) -> int:
    """How many bytes `1000`, `1.5GiB` or `500 MiB` are. Raises ValueError."""
    for unit, size in _UNITS.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * size)
    return int(text)


def _show(run: Run, quota: identity_pb2.Quota, used: identity_pb2.QuotaUsage) -> None:
    def amount(field: str, value: Any) -> str:
        if "running_time" in field:
            return f"{value.ToTimedelta().total_seconds():,.0f}"
        return f"{value / 1_000_000:,.2f}" if "micros" in field else f"{value:,}"

    rows = []
    for field, (title, counter) in _LIMITS.items():
        if field == "max_users" and quota.name.startswith("users/"):
            continue
        limit = amount(field, getattr(quota, field)) if _by_name(quota).HasField(field) else _UNLIMITED
        rows.append((title, amount(counter, getattr(used, counter)), limit))
    run.out.print(quota.name, style="bold")
    run.out.table(("WHAT", "USED#", "LIMIT#"), rows, empty="")
