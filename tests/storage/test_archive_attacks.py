"""Archives that somebody made to do harm: each is refused, the error names the member, and nothing was touched."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from tests.promises.refusal import refused as refusal
from tests.storage.desk import Desk
from tests.storage.places import Site
from tests.storage.test_paths import REFUSED
from tests.storage.vault import Vault, file, manifest, packed, tar, whole


@pytest.fixture
def storage_settings() -> dict[str, Any]:
    """Small limits, so that bombs can be small."""
    return {"max_archive_files": 20, "max_archive_bytes": 100 * 1024 * 1024, "max_archive_ratio": 50}


GOOD = ("good", b"good")


def member(name: str, data: bytes = b"", **more: Any) -> bytes:
    """An archive that begins well and then has this."""
    listed = [GOOD, (name.removeprefix("workspace/"), data)]
    return packed([file("workspace/good", b"good"), file(name, data, **more), manifest(listed)])


def twice(*paths: str) -> bytes:
    return whole(*((path, path.encode()) for path in paths))


def sparse() -> bytes:
    head = file("workspace/huge")[0]
    head.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    return packed([(head, b"attack"), manifest([("huge", b"attack")])])


def long_header() -> bytes:
    head = file("workspace/huge")[0]
    head.pax_headers = {"comment": "x" * 100_000}
    return packed([(head, b"attack"), manifest([("huge", b"attack")])])


def foreign_header() -> bytes:
    head = file("workspace/odd")[0]
    head.pax_headers = {"linkpath": "/etc/passwd"}
    return packed([(head, b"attack"), manifest([("odd", b"attack")])])


def bomb() -> bytes:
    return whole(("bomb", bytes(90 * 1024 * 1024)))


def in_front_of(manifest_of: list[tuple[str, bytes]], **more: Any) -> bytes:
    return packed([file("workspace/good", b"good"), manifest(manifest_of, **more)])


def changed_number() -> bytes:
    data = bytearray(tar([file("workspace/good", b"good"), manifest([GOOD])]))
    data[124:136] = b"\x80" + bytes(10) + b"\x04"
    return gzip.compress(bytes(data), 1)


def without(end: int) -> bytes:
    return whole(GOOD, ("noise", os.urandom(5000)))[:-end]


def hidden() -> bytes:
    data = bytearray(tar([file("workspace/good", b"good"), manifest([GOOD])]))
    data[512 + 100] = 7
    return gzip.compress(bytes(data), 1)


PATHS = {
    f"path {path!r}": (f"workspace/{path}", partial(member, f"workspace/{path}"))
    for path in REFUSED
    if "\0" not in path and len(path) < 3000 and not any("\ud800" <= each <= "\udfff" for each in path)
}
KINDS: Mapping[str, dict[str, Any]] = {
    "a symbolic link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "a hard link": {"type": tarfile.LNKTYPE, "linkname": "workspace/good"},
    "a character device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    "a block device": {"type": tarfile.BLKTYPE},
    "a pipe": {"type": tarfile.FIFOTYPE},
    "a folder of its own": {"type": tarfile.DIRTYPE},
    "a contiguous file": {"type": tarfile.CONTTYPE},
    "a sparse file": {"type": tarfile.GNUTYPE_SPARSE},
    "of an unknown kind": {"type": b"Z"},
}
Attack = tuple[str, str, Callable[[], bytes]]
ATTACKS: dict[str, Attack] = {
    **{name: (trap, "", make) for name, (trap, make) in PATHS.items()},
    **{kind: ("workspace/trap", kind, partial(member, "workspace/trap", **more)) for kind, more in KINDS.items()},
    "absolute": ("/etc/passwd", "neither below", lambda: member("/etc/passwd", b"attack")),
    "beside": ("secret", "neither below", lambda: member("secret", b"attack")),
    "upwards": ("workspace/../../b", "..", lambda: member("workspace/../../b", b"attack")),
    "twice": ("a", "twice", lambda: twice("a", "a")),
    "twice but for case": ("A", "twice", lambda: twice("a", "A")),
    "twice but for case in a folder": ("B/x", "twice", lambda: twice("b/x", "B/x")),
    "twice but for sharp s": ("STRASSE", "twice", lambda: twice("straße", "STRASSE")),
    "another normal form": ("workspace/e\u0301", "normal form", lambda: twice("\xe9", "e\u0301")),
    "a file as a folder": ("a/b", "folder", lambda: twice("a", "a/b")),
    "a folder as a file": ("a", "folder", lambda: twice("a/b", "a")),
    "a sparse file by a header": ("", "sparse", sparse),
    "a header without end": ("", "header of more than", long_header),
    "a header of a link": ("", "linkpath", foreign_header),
    "a bomb": ("bomb", "50 times", bomb),
    "too many files": ("f20", "one more file", lambda: twice(*(f"f{number:02}" for number in range(21)))),
    "too many folders": ("", "files and folders", lambda: twice(*(deep(number) for number in range(18)))),
    "too many bytes": ("huge", "more than 104,857,600", lambda: huge(200 << 20)),
    "more than there can be": ("huge", "more than 104,857,600", lambda: huge(8 << 30)),
    "another checksum": ("good", "another checksum", lambda: in_front_of([("good", b"evil")])),
    "another size": ("good", "another size", lambda: in_front_of([("good", b"longer")])),
    "another order": ("good", "where the manifest has", lambda: in_front_of([("b", b"good"), GOOD])),
    "not in the manifest": ("good", "not in the manifest", lambda: in_front_of([])),
    "a manifest of much more than the files": (
        "manifest.json",
        "lists more than the 1 files",
        lambda: packed(
            [file("workspace/good", b"good"), file("manifest.json", b'{"files": [' + b"{}," * 500 + b"{}]}")]
        ),
    ),
    "only in the manifest": ("b", "in the manifest only", lambda: in_front_of([GOOD, ("b", b"")])),
    "another manifest": ("manifest.json", "of another version", lambda: in_front_of([GOOD], version=2)),
    "another format": ("manifest.json", "of a workspace", lambda: in_front_of([GOOD], format="zip")),
    "no list": ("manifest.json", "no list", lambda: in_front_of([GOOD], files={"good": 1})),
    "no JSON": ("manifest.json", "no JSON", lambda: packed([file("manifest.json", b"[" * 40)])),
    "a huge manifest": ("manifest.json", "too many", lambda: packed([file("manifest.json", bytes(100_000))])),
    "no manifest": ("", "cut off", lambda: packed([file("workspace/good", b"good")])),
    "a number in another form": ("workspace/good", "damaged", changed_number),
    "something hidden": ("good", "hidden", hidden),
    "cut off": ("", "", lambda: without(2000)),
    "cut off in its last bytes": ("", "cut off", lambda: without(1)),
    "something behind it": ("manifest.json", "after the end", lambda: whole(GOOD) + b"more"),
    "another archive behind it": ("manifest.json", "after the end", lambda: whole(GOOD) * 2),
    "no tar": ("", "", lambda: gzip.compress(b"\x01" * 4096)),
    "GNU's form": (
        "workspace/good",
        "POSIX",
        lambda: packed([file("workspace/good", b"good")], form=tarfile.GNU_FORMAT),
    ),
    "no gzip": ("", "no gzip", lambda: b"PK\x03\x04" + bytes(100)),
    "nothing": ("", "cut off", lambda: b""),
}


def deep(number: int) -> str:
    """A path of thirty folders that nobody else has."""
    return "/".join(f"{number}-{depth}" for depth in range(31))


def huge(size: int) -> bytes:
    """A file that is announced with so many bytes, of which none are there."""
    info = file("workspace/huge")[0]
    info.size = size
    out = io.BytesIO(info.tobuf(tarfile.PAX_FORMAT))
    return gzip.compress(out.getvalue() + bytes(4096))


async def test_no_archive_that_was_made_to_do_harm_is_restored(desk: Desk, site: Site, myself: tuple[str, str]) -> None:
    vault = Vault(desk)
    await desk.put("inside", b"inside")
    await site.surround(desk.workspace)
    other = await Desk.open(desk.channel)
    wrong = []
    for name, (trap, why, make) in ATTACKS.items():
        await other.put("attack.tar.gz", make())
        before = await site.snapshot()
        told = await refusal(vault.restore(file=other.name("attack.tar.gz"), overwrite=True))
        violations = [] if told.code != "FAILED_PRECONDITION" else told.details["PreconditionFailure"].violations
        if told.reason != "ARCHIVE_REFUSED" or why not in str(violations[0].description):
            wrong.append(f"{name}: {told}")
        elif trap and violations[0].subject.rstrip("/") != trap[:300].rstrip("/"):
            wrong.append(f"{name}: the error names {violations[0].subject!r}, not {trap!r}")
        if await site.snapshot() != before:
            wrong.append(f"{name}: something has changed")
    assert not wrong, "\n".join(wrong)
    assert await desk.list(recursive=True) == ["inside"]
    info = await desk.info()
    assert (info.used_bytes, info.file_count, info.reserved_bytes) == (6, 1, 0)


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_an_archive_that_was_damaged_where_it_lies_is_refused(desk: Desk, site: Site, tmp_path: Any) -> None:
    await desk.put("a", os.urandom(100_000))
    vault = Vault(desk)
    archive = await vault.make()
    (stored,) = (tmp_path / "data" / "workspaces").rglob("archive.tar.gz")
    data = stored.read_bytes()
    forged = whole(("a", b"forged"))
    for damaged in (data[:-1], data[:50_000] + b"\0\0\0\0" + data[50_004:], data + b"\0", forged, b""):
        stored.write_bytes(damaged)
        told = await refusal(vault.restore(overwrite=True))
        assert (told.code, told.reason) == ("FAILED_PRECONDITION", "ARCHIVE_REFUSED")
        assert len(await desk.get("a")) == 100_000
    stored.write_bytes(data)
    assert hashlib.sha256(await vault.get()).hexdigest() == archive.sha256
    await vault.restore(overwrite=True)


async def test_a_workspace_that_could_not_be_restored_is_not_archived(desk: Desk, site: Site) -> None:
    for number in range(21):
        await desk.put(f"{number}", b"x")
    told = await refusal(Vault(desk).make())
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "LIMIT_REACHED")
    assert "storage.max_archive_files" in told.message
    assert await Vault(desk).list() == []
    assert len(await site.everything()) == 21
