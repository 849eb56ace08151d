"""What people may write shorter than protobuf's JSON, and values of options."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stationmaster.v1 import agent_pb2, task_pb2
from stationmaster_client.cli import given
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.main import app
from stationmaster_client.cli.shorthand import seconds, spelt_out

TASK = task_pb2.Task.DESCRIPTOR


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("5m", 300), ("5 min", 300), ("1d", 86_400), ("1h 30m", 5400)],
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 weeks", "m", "1h and 5m"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time"):
        seconds(text)


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ({"schedule": {"overlap": "buffer one"}}, {"schedule": {"overlap": "OVERLAP_POLICY_BUFFER_ONE"}}),
        ({"options": {"reportFormats": ["pdf"]}}, {"options": {"reportFormats": ["REPORT_FORMAT_PDF"]}}),
        ({"schedule": {"every": 90}}, {"schedule": {"every": "90s"}}),
        ({"schedule": {"jitter": "500s"}}, {"schedule": {"jitter": "500s"}}),
        (
            {"schedule": {"end_time": datetime(2026, 3, 1, 7, tzinfo=UTC)}},
            {"schedule": {"end_time": "2026-03-01T07:00:00+00:00"}},
        ),
        ({"dependency_mode": 2}, {"dependency_mode": 2}),
        ({"labels": {"schedule": "daily"}}, {"labels": {"schedule": "daily"}}),
    ],
)
def test_fields_are_spelt_out_by_what_they_are(short: dict[str, Any], whole: dict[str, Any]) -> None:
    assert spelt_out(short, TASK) == whole


def test_payloads_are_data_and_stay_as_they_are() -> None:
    payload = {"state": "active", "every": "5m", "kind": {"type": "integer"}}
    assert spelt_out({"payload": payload}, TASK) == {"payload": payload}
    assert spelt_out({"payload": {"day": date(2026, 3, 1)}}, TASK) == {"payload": {"day": "2026-03-01"}}


def test_agents_are_written_short_as_well() -> None:
    spec = {"spec": {"tool_policies": [{"pattern": "files.*", "effect": "ask"}]}}
    spelt = spelt_out(spec, agent_pb2.Agent.DESCRIPTOR)
    assert spelt["spec"]["tool_policies"][0]["effect"] == "TOOL_EFFECT_ASK"


def test_values_are_texts_lists_json_and_files(tmp_path: Path) -> None:
    file = tmp_path / "payload.yaml"
    file.write_text("model: demo\nsteps: 3\n")
    texts = [f"@{file}", "text=a=b", "steps:=4", "urls[]=x", "urls[]=y", '{"deep": {"a": [1]}}', f"copy=@{file}"]
    assert given.values(texts, "--payload") == {
        "model": "demo",
        "steps": 4,
        "text": "a=b",
        "urls": ["x", "y"],
        "deep": {"a": [1]},
        "copy": "model: demo\nsteps: 3\n",
    }


@pytest.mark.parametrize("text", ["text", "=x", "a:=", "[1]", '{"a"', "@/nowhere/at-all", "a=@/nowhere/at-all"])
def test_what_is_no_value_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"--payload|nowhere"):
        given.values([text], "--payload")


def test_times_are_dates_moments_or_counted_from_now() -> None:
    assert given.moment("2026-03-01T07:30Z", "--at") == datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
    here = given.moment("2026-03-01", "--from")
    assert here is not None
    assert here.astimezone().isoformat().startswith("2026-03-01T00:00:00")
    ahead, behind = given.moment("+2h", "--at"), given.moment("-7d", "--from")
    assert ahead is not None
    assert behind is not None
    assert ahead - behind == pytest.approx(timedelta(days=7, hours=2), abs=timedelta(minutes=1))
    with pytest.raises(CommandError, match="--at: 'noon' is no time"):
        given.moment("noon", "--at")


def test_show_and_get_are_both_understood_and_one_of_them_is_shown() -> None:
    downloads = {"files", "archives", "reports"}
    for group in app.registered_groups:
        commands = group.typer_instance.registered_commands if group.typer_instance else []
        verbs = {one.name: one.hidden for one in commands if one.name in ("show", "get")}
        assert not verbs or group.name in downloads or verbs == {"show": False, "get": True}, group.name
    assert len(app.registered_groups) > 20
