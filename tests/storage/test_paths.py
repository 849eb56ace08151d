"""Paths: one form, and nothing in them that anything could take for a way out."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.storage.paths import PathRefused, normalise, parse, require, speakable

REFUSED = {
    "": "empty",
    ".": ". or ..",
    "..": ". or ..",
    "./a": ". or ..",
    "a/..": ". or ..",
    "a/../../b": ". or ..",
    "/etc/passwd": "relative",
    "//host/share": "relative",
    "a//b": "both sides",
    "a/": "both sides",
    "a\\b": "relative",
    "..\\b": "relative",
    "C:": "relative",
    "c:/windows": "relative",
    "a/C:": "drive",
    "a\0b": "control",
    "a\nb": "control",
    "a\x7fb": "control",
    "a\u202eb": "invisible",
    "a\u200bb": "invisible",
    "\ufeffa": "invisible",
    "a\u2028b": "invisible",
    "a\ud800b": "invisible",
    "cafe\u0301": "normal form C",
    "\u212b": "normal form C",  # the sign of the angstrom
    "a\uff0fb": "looks like",  # fullwidth /
    "\uff0e\uff0e/b": "looks like",  # fullwidth .
    "\u2024\u2024/b": "looks like",  # leaders
    "\u2025/b": "looks like",
    "a\u2026": "looks like",
    "a\u2044b": "looks like",  # fraction slash
    "a\u2215b": "looks like",  # division slash
    "a\u29f8b": "looks like",
    "a\uff3cb": "looks like",  # fullwidth backslash
    "a\ufe68b": "looks like",
    "\u2100": "looks like",  # a/c in one character
    "%2e%2e/b": "decoded",
    "%2E%2e%2Fb": "decoded",
    "a%2fb": "decoded",
    "a%5Cb": "decoded",
    "a%00b": "decoded",
    "%252e%252e": "decoded",
    "%25252f": "decoded",
    "%c0%ae%c0%ae": "no text",  # an overlong dot
    "a%" + "25" * 20 + "2f": "again and again",
    " a": "space",
    "a ": "space",
    "b/a ": "space",
    "\u00a0a": "space",
    "a.": "ends with a dot",
    "...": "ends with a dot",
    "con": "device",
    "a/NUL.txt": "device",
    "Lpt1": "device",
    "com\u00b9.log": "device",
    "aux .txt": "device",
    "x" * 256: "255 bytes",
    "é" * 128: "255 bytes",
    "/".join(["x" * 200] * 6): "1024 bytes",
    "/".join(["x"] * 33): "32 names",
}
TAKEN = [
    "a",
    ".hidden",
    "...a",
    "a.b.c",
    "Grüße/café.txt",
    "報告書/２０２６年\uff1a夏.txt",
    "ノート/メモ.txt",
    "100%.txt",
    "a%20b.txt",
    "%.txt",
    "~",
    "-rf",
    "console.log",
    "comb",
    "2026-01-01T10:00.log",
    "½ pound",
    "👍.txt",
    "x" * 255,
    "/".join(["x"] * 32),
]


@pytest.mark.parametrize(("path", "why"), list(REFUSED.items()), ids=[ascii(path)[:40] for path in REFUSED])
def test_a_path_that_may_lead_elsewhere_is_refused_and_told_why(path: str, why: str) -> None:
    with pytest.raises(PathRefused) as refused:
        parse(path)
    assert why in str(refused.value)
    with pytest.raises(InvalidArgument) as invalid:
        require(path, "destination")
    assert invalid.value.reason is Reason.INVALID_FIELD
    (violation,) = invalid.value.violations
    assert (violation.field, violation.description) == ("destination", str(refused.value))


@pytest.mark.parametrize("path", TAKEN, ids=ascii)
def test_a_path_that_people_use_is_taken(path: str) -> None:
    assert "/".join(parse(path)) == path


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["..", ".", "a", "%2e", "%2f", "/", "\\", "", "\uff0e"])).map("".join)
)
@example("a/./../b")
def test_what_is_taken_has_one_form_and_stays_inside(path: str) -> None:
    try:
        names = parse(path)
    except PathRefused:
        return
    assert "/".join(names) == path == unicodedata.normalize("NFC", path)
    root = "/root/of/workspace"
    for form in ("NFC", "NFKC", "NFKD"):
        text = unicodedata.normalize(form, path)
        assert os.path.normpath(os.path.join(root, text)).startswith(f"{root}/")  # noqa: PTH118 - text only
        assert text.count("/") == path.count("/")


@pytest.mark.parametrize(
    ("path", "names"),
    [("", ()), (".", ()), ("./", ()), ("./a//b/", ("a", "b")), ("a/./b", ("a", "b"))],
)
def test_models_may_write_dots_and_slashes_too_many(path: str, names: tuple[str, ...]) -> None:
    assert normalise(path) == names


@pytest.mark.parametrize("path", ["/", "/a", "a/../b", "..", ".\\a"])
def test_but_never_what_leads_out(path: str) -> None:
    with pytest.raises(PathRefused):
        normalise(path)


def test_a_name_that_no_path_can_have_cannot_be_spoken_of() -> None:
    assert speakable("a.txt")
    assert not any(speakable(name) for name in ("a.", "a\udcff", "..", "", "a/b"))
