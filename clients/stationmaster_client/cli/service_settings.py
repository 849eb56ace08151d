"""What `services set` was told, put into the message of the service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from stationmaster_client.cli import given
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stationmaster.v1 import maintenance_pb2

DEFAULT = "default"
_FIELDS = {
    "interval": "interval",
    "max-failures": "max_failures",
    "retry-delay": "retry_delay",
    "alert-errors": "alert_errors_per_hour",
    "alert-run-time": "alert_run_time",
    "alert-memory": "alert_memory_growth_bytes",
    "alert-files": "alert_handle_growth",
}
"""By the names of their options."""


def plainly(service: maintenance_pb2.BackgroundService, **values: bool | int | None) -> list[str]:
    """Set what was given; the names of the fields."""
    fields = [name for name, value in values.items() if value is not None]
    for name in fields:
        setattr(service, name, values[name])
    return fields


def spans(service: maintenance_pb2.BackgroundService, **texts: str) -> list[str]:
    """The same for lengths of time. Raises CommandError."""
    fields = [name for name, text in texts.items() if text]
    for name in fields:
        text = texts[name]
        option = f"--{name.replace('_', '-')}"
        span = None if text == DEFAULT else given.span(text, option)
        if span is not None and not span:
            raise CommandError(f"{option} {text!r}: write more than 0s, or {DEFAULT!r}")
        getattr(service, name).FromTimedelta(span or timedelta())  # zero means the default
    return fields


def by_default(service: maintenance_pb2.BackgroundService, names: Sequence[str], given: Collection[str]) -> list[str]:
    """Clear what is to be by default again; the names of the fields.

    Raises CommandError for what cannot be, and for fields or settings of its own that are `given` a value as well.
    """
    from stationmaster_client.maintenance import by_default

    fields = [_FIELDS.get(name, name) for name in names]
    for name, field in zip(names, fields, strict=True):
        if field in given:
            raise CommandError(f"{name} is either set or, by --reset, by default again")
        if name not in _FIELDS and name not in service.settings.fields:
            known = ", ".join([*_FIELDS, *sorted(service.settings.fields)])
            raise CommandError(f"--reset: {name!r} has no default to go back to; there are {known}")
    return by_default(service, fields)
