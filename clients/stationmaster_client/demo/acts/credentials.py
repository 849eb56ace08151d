"""A secret: encrypted where it lies, masked where it is shown, in the trail when it is read."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from stationmaster.v1 import credential_pb2

from stationmaster_client.demo.stage import Stage

NAME, PURPOSE = "timetable-service", "demo"
_AT_ONCE = 1 << 20


async def play(stage: Stage) -> None:
    """Keep a secret, replace it, and look for both in everything that the server wrote."""
    client, programme = stage.client, stage.programme
    programme.act("A secret")
    first, second = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    note = secrets.token_urlsafe(24)
    described = credential_pb2.Credential(description=note)
    created = await client.credentials.create(NAME, first, credential=described)
    shown = await client.credentials.get(NAME)
    rotated = await client.credentials.rotate(NAME, second)
    current = await client.credentials.value(NAME, purpose=PURPOSE)
    programme.fact(f"{created.name} was kept, shown, and replaced by its second version")
    answers = [str(each) for each in (created, shown, rotated, *[each async for each in client.credentials.list()])]
    hidden = all(NAME in answer for answer in answers) and not any(
        secret in answer for answer in answers for secret in (first, second)
    )
    detail = f"{len(answers)} answers searched"
    programme.check("Credential", "no answer but that of AccessCredential has it", hidden, detail)
    programme.check("Credential", "a rotation takes effect at once", current == second, "version 2")
    wanted = [first.encode(), second.encode()]
    searched, found = await asyncio.to_thread(_search, stage.folder, [note.encode(), *wanted])
    kept, detail = _judged(searched, found, wanted, note.encode())
    programme.check("Credential", "no file of the database or the logs has it in clear", kept, detail)


def _judged(searched: int, found: dict[bytes, str], secret: list[bytes], note: bytes) -> tuple[bool, str]:
    """Whether no secret was found, by a search that finds its description, which nobody encrypts."""
    told = next((found[each] for each in secret if each in found), None)
    if told is not None:
        return False, f"it is in {told}"
    if note not in found:
        return False, f"the search does not even find its description, in {searched / 2**20:.0f} MiB"
    return True, f"{searched / 2**20:.0f} MiB searched, in which its description is found"


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
