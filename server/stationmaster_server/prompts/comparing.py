"""What changed from one version to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import SequenceMatcher
from enum import StrEnum

from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import DeadlineExceeded, InvalidArgument
from stationmaster_server.prompts.model import Target, Version
from stationmaster_server.prompts.service import PromptService
from stationmaster_server.templating.model import Variable
from stationmaster_server.templating.templates import Runner

_AROUND = 3
_TIMEOUT = timedelta(seconds=2)
_FEW_LINES = 200


class Change(StrEnum):
    """What became of a line."""

    SAME = "SAME"
    ADDED = "ADDED"
    REMOVED = "REMOVED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a difference; its numbers in the older and the newer text, from 1, or 0."""

    change: Change
    text: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two versions. Of variables: as they were and as they are, None where they are not."""

    old: int
    new: int
    lines: Sequence[Line]
    variables: Sequence[tuple[Variable | None, Variable | None]]


class Comparing:
    """Compares versions; long ones in a process of their own."""

    def __init__(self, prompts: PromptService, run: Runner) -> None:
        self._prompts = prompts
        self._run = run

    async def difference(self, caller: Caller, prompt_id: str, old: int, new: int) -> Difference:
        """From one version to another; 0: the newest, and the one before it. Raises NotFound, InvalidArgument."""
        newer = (await self._prompts.get(caller, prompt_id, Target(new))).shown
        number = old or max(newer.version - 1, 1)
        older = (await self._prompts.get(caller, prompt_id, Target(number))).shown
        lines = await self._lines(older.template, newer.template)
        return Difference(older.version, newer.version, lines, _variables(older, newer))

    async def _lines(self, old: str, new: str) -> list[Line]:
        if old.count("\n") + new.count("\n") <= _FEW_LINES:
            return lines(old, new)
        try:
            return await self._run(lines, old, new, timeout=_TIMEOUT)
        except DeadlineExceeded:
            text = f"the two differ so much that comparing them takes longer than {_TIMEOUT.total_seconds():g} s"
            raise InvalidArgument.field("from_version", text) from None


def lines(old: str, new: str) -> list[Line]:
    """The lines that differ, with some around each change."""
    before, after = _split(old), _split(new)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    found: list[Line] = []
    end = 0
    for group in matcher.get_grouped_opcodes(_AROUND):
        if group[0][1] > end:
            found.append(Line(Change.SKIPPED, "", 0, 0))
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                found += [Line(Change.SAME, before[i], i + 1, j1 + i - i1 + 1) for i in range(i1, i2)]
                continue
            found += [Line(Change.REMOVED, before[i], i + 1, 0) for i in range(i1, i2)]
            found += [Line(Change.ADDED, after[j], 0, j + 1) for j in range(j1, j2)]
        end = group[-1][2]
    if found and end < len(before):
        found.append(Line(Change.SKIPPED, "", 0, 0))
    return found


def _split(text: str) -> list[str]:
    """Its lines, as `_lines` counts them: only a line feed ends one."""
    split = text.split("\n")
    return split if split[-1] else split[:-1]


def _variables(old: Version, new: Version) -> list[tuple[Variable | None, Variable | None]]:
    before = {variable.name: variable for variable in old.variables}
    after = {variable.name: variable for variable in new.variables}
    names = dict.fromkeys([*before, *after])
    return [(before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
