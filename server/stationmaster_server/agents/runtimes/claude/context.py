"""What a command line is given to begin with: the transcript as far as it agrees with our messages, and the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

from claude_agent_sdk import SessionKey, project_key_for_directory

from stationmaster_server.agents.runtime import HistoryMessage
from stationmaster_server.agents.runtimes.claude import transcript
from stationmaster_server.agents.runtimes.claude.command import Place
from stationmaster_server.agents.runtimes.claude.store import PROJECT, Transcripts
from stationmaster_server.agents.runtimes.claude.transcript import Said, Scribe
from stationmaster_server.agents.transcript_store import Entry


@dataclass(frozen=True, slots=True)
class Beginning:
    """Entries that say all that was said before; `changed` when they are not those of the database."""

    entries: list[Entry]
    changed: bool
    said: list[Said]


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
