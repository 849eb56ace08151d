"""Every text that lists the kinds of tasks lists the same ones."""

from __future__ import annotations

import re

import pytest
from stationmaster_client.cli.execution_options import KINDS
from stationmaster_server.app.tasks import OURS

from tests.client.test_guides import GUIDE, README, ROOT

TABLES = {
    "tasks.md": r"^\| `([a-z]+)` \| [a-z]+s .* \| ",
    "task-kinds.md": r"^\| `([a-z]+)` \| [a-z]+s ",
    "task-kinds-reference.md": r"^## `([a-z]+)`$",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_guide_lists_all_kinds_in_one_order(name: str) -> None:
    text = GUIDE.with_name(name).read_text()
    assert tuple(re.findall(TABLES[name], text, re.MULTILINE)) == OURS


def test_help_readme_and_contract_name_all_kinds_in_one_order() -> None:
    assert KINDS == OURS
    (line,) = (line for line in README.read_text().splitlines() if line.startswith("Tasks do what their kind does"))
    assert tuple(re.findall(r"`([a-z]+)`", line)) == OURS
    contract = (ROOT / "protos/stationmaster/v1/task.proto").read_text()
    (comment,) = re.findall(r"// What it does: (`prompt`.*)", contract)
    assert tuple(re.findall(r"`([a-z]+)`", comment)) == OURS
