"""What a command line is given to begin with: the transcript as far as it agrees with our messages, and the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

from claude_agent_sdk import SessionKey, project_key_for_directory

from stationmaster_server.agents.prices import estimate_tokens
from stationmaster_server.agents.runtime import HistoryMessage
from stationmaster_server.agents.runtimes.claude import transcript
from stationmaster_server.agents.runtimes.claude.command import Place
from stationmaster_server.agents.runtimes.claude.store import PROJECT, Transcripts
from stationmaster_server.agents.runtimes.claude.transcript import Said, Scribe
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.agents.transcript_store import Entry

OWN_TOKENS = 3_000
"""About how many the command line adds: its own words, and where it runs."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Entries that say all that was said before; `changed` when they are not those of the database."""

    entries: list[Entry]
    changed: bool
    said: list[Said]

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens the entries take, and what comes with them."""
        told = (json.dumps(entry["message"]) for entry in self.entries if "message" in entry)
        return OWN_TOKENS + sum(map(estimate_tokens, told))


async def prepare(transcripts: Transcripts, scribe: Scribe, history: Sequence[HistoryMessage]) -> Beginning:
    """The transcript of the session, brought to say what this history says."""
    found = await transcripts.load(_key(scribe.session_id)) or []
    stored = cast("list[Entry]", found)
    wanted = transcript.said(history)
    kept, agreed = transcript.agreement(stored, wanted)
    entries = stored[:kept]
    entries += scribe.entries(history, transcript.place_of(history, agreed), transcript.last_id(entries))
    return Beginning(entries, entries != stored, wanted)


async def settle(transcripts: Transcripts, beginning: Beginning, place: Place, instructions: str) -> None:
    """Put everything where the command line looks for it, and the entries into the database if it has others."""
    if beginning.changed:
        await transcripts.replace(_key(place.session_id), beginning.entries)
    await asyncio.to_thread(_write, place, beginning.entries, instructions)


def new_place(folder: Path, session_id: UUID, workspace: Path) -> Place:
    """A private folder for one process, whichever of the session's it is."""
    return Place(session_id, workspace, folder / f"{session_id.hex}-{uuid4().hex[:8]}")


def estimate_offer(offered: Mapping[str, Tool], instructions: str) -> int:
    """About how many tokens it takes to tell a model of these tools and instructions."""
    told = (json.dumps([name, tool.description, dict(tool.parameters)]) for name, tool in offered.items())
    return estimate_tokens(instructions) + sum(map(estimate_tokens, told))


def _write(place: Place, entries: Sequence[Entry], instructions: str) -> None:
    place.home.mkdir(mode=0o700, parents=True)
    place.instructions.write_text(instructions)
    if entries:
        project = place.home / "projects" / project_key_for_directory(place.workspace)
        project.mkdir(parents=True)
        lines = [json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries]
        (project / f"{place.session_id}.jsonl").write_text("".join(lines))


def _key(session_id: UUID) -> SessionKey:
    return {"project_key": PROJECT, "session_id": str(session_id)}
