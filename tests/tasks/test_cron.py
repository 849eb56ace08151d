"""Cron expressions: what is read, and what is refused by the name of its field."""

from __future__ import annotations

from datetime import datetime

import pytest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import cron


def times(expression: str, start: str, count: int) -> list[str]:
    """The next wall-clock times."""
    parsed = cron.parse(expression)
    at: datetime | None = datetime.fromisoformat(start)
    found = []
    for _ in range(count):
        assert at is not None
        at = parsed.first(at)
        assert at is not None
        found.append(at.isoformat(" ", "minutes"))
        at = datetime.fromisoformat(found[-1]).replace(second=1)
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@hourly", ["2026-01-01 01:00", "2026-01-01 02:00"]),
        ("@daily", ["2026-01-02 00:00", "2026-01-03 00:00"]),
        ("@MIDNIGHT", ["2026-01-02 00:00", "2026-01-03 00:00"]),
        ("@weekly", ["2026-01-04 00:00", "2026-01-11 00:00"]),
        ("@monthly", ["2026-02-01 00:00", "2026-03-01 00:00"]),
        ("@yearly", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ("@annually", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ("*/20  9-10 * * mon-fri", ["2026-01-01 09:00", "2026-01-01 09:20"]),
        ("5,35 0 * JAN,FEB *", ["2026-01-01 00:05", "2026-01-01 00:35"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 29 2 */7", ["2032-02-29 00:00", "2060-02-29 00:00"]),
        ("0 0 13 * 5", ["2026-01-02 00:00", "2026-01-09 00:00"]),  # the 13th, or a Friday
        ("0 0 L * *", ["2026-01-31 00:00", "2026-02-28 00:00"]),
        ("0 0 LW * *", ["2026-01-30 00:00", "2026-02-27 00:00"]),
        ("0 0 * * 5L", ["2026-01-30 00:00", "2026-02-27 00:00"]),
        ("0 0 * * MON#2", ["2026-01-12 00:00", "2026-02-09 00:00"]),
    ],
)
def test_expressions_mean_what_cron_means_by_them(expression: str, expected: list[str]) -> None:
    assert times(expression, "2026-01-01 00:00:01", 2) == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("60 * * * *", "the minute field, '60', is wrong: write 0 to 59"),
        ("0 25 * * *", "the hour field, '25', is wrong: write 0 to 23"),
        ("0 0 0 * *", "the day of month field, '0', is wrong: write 1 to 31"),
        ("0 0 * 13 *", "the month field, '13', is wrong: write 1 to 12 or JAN to DEC"),
        ("0 0 * * 8", "the day of week field, '8', is wrong: write 0 to 7 or SUN to SAT"),
        ("0 0 * * monday", "the day of week field, 'MONDAY', is wrong"),
        ("*/0 * * * *", "the minute field, '*/0', is wrong"),
        ("0 9-5 * * *", "the hour field, '9-5', is wrong"),
        ("0 1,,2 * * *", "the hour field, '1,,2', is wrong"),
        ("0 -1 * * *", "the hour field, '-1', is wrong"),
        ("0 \u0663 * * *", "the hour field, '\u0663', is wrong"),
        ("0 0 * * ?", "the day of week field, '?', is wrong"),
        ("0 0 31 2 *", "no date is ever the one that the day of month field, '31', the month field, '2'"),
        ("0 0 */31 2 1#5", "no date is ever the one"),
        ("0 0 * * * *", "has six fields, the first of which would be seconds: write the other five"),
        ("0 0 * *", "has 4 fields: write five: minute, hour, day of month, month, day of week"),
        ("", "has 0 fields"),
        ("@noon", "'@noon' is not known: write one of @hourly, @daily"),
        ("*," * 200 + "* * * * *", "the expression is longer than 250 characters"),
    ],
)
def test_a_wrong_expression_is_refused_by_the_name_of_its_field(expression: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        cron.parse(expression, "task.schedule.cron")
    assert said in refused.value.message
    assert [violation.field for violation in refused.value.violations] == ["task.schedule.cron"]
