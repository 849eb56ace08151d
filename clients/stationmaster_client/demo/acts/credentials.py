"""A secret: encrypted where it lies, masked where it is shown, in the trail when it is read."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from stationmaster_client.demo.stage import Stage

NAME, PURPOSE = "timetable-service", "demo"
_AT_ONCE = 1 << 20


async def play(stage: Stage) -> None:
    """Keep a secret, replace it, and look for both in everything that the server wrote."""
    client, programme = stage.client, stage.programme
    programme.act("A secret")
    first, second = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    created = await client.credentials.create(NAME, first)
    shown = await client.credentials.get(NAME)
    rotated = await client.credentials.rotate(NAME, second)
    current = await client.credentials.value(NAME, purpose=PURPOSE)
    programme.fact(f"{created.name} was kept, shown, and replaced by its second version")
    hidden = first not in str(shown) and second not in str(rotated)
    programme.check("Credential", "no answer but that of AccessCredential has it", hidden, "two answers searched")
    programme.check("Credential", "a rotation takes effect at once", current == second, "version 2")
    wanted = [first.encode(), second.encode()]
    searched, found = await asyncio.to_thread(_search, stage.folder, [NAME.encode(), *wanted])
    kept, detail = _judged(searched, found, wanted)
    programme.check("Credential", "no file of the database or the logs has it in clear", kept, detail)


def _judged(searched: int, found: dict[bytes, str], secret: list[bytes]) -> tuple[bool, str]:
    """Whether no secret was found, by a search that finds what is there in clear."""
    told = next((found[each] for each in secret if each in found), None)
    if told is not None:
        return False, f"it is in {told}"
    if NAME.encode() not in found:
        return False, f"the search does not even find the name, in {searched / 2**20:.0f} MiB"
    return True, f"{searched / 2**20:.0f} MiB searched, in which its name is found"


def _search(folder: Path, wanted: list[bytes]) -> tuple[int, dict[bytes, str]]:
    """How many bytes were read, and in which file each of those wanted was found first."""
    searched, found = 0, dict[bytes, str]()
    for file in folder.rglob("*"):
        try:
            if not file.is_file():
                continue
            with file.open("rb") as opened:
                before = b""
                while piece := opened.read(_AT_ONCE):
                    searched += len(piece)
                    for each in wanted:
                        if each not in found and each in before + piece:
                            found[each] = str(file.relative_to(folder))
                    before = piece[-100:]
        except OSError:  # PostgreSQL removes files all the time
            continue
    return searched, found
