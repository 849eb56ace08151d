"""The file tools, as a model sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stationmaster_server.agents.model import Effect
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.files import MAX_FILE_BYTES, MAX_MATCHES
from stationmaster_server.agents.tools.tool import ToolContext, ToolError


async def call(workspace: Path, name: str, **arguments: Any) -> str:
    context = ToolContext(uuid4(), uuid4(), uuid4(), uuid4(), "call", workspace)
    return await builtin_toolbox().offered((name,))[name].run(context, arguments)


async def test_files_are_written_listed_read_and_found(tmp_path: Path) -> None:
    assert await call(tmp_path, "files.write", path="a/b.txt", content="one\nTwo\n") == "Wrote 8 bytes to a/b.txt."
    assert await call(tmp_path, "files.list") == "a/"
    assert await call(tmp_path, "files.list", recursive=True) == "a/\na/b.txt (8 bytes)"
    assert await call(tmp_path, "files.read", path="a/b.txt") == "one\nTwo\n"
    assert await call(tmp_path, "files.search", text="two") == "a/b.txt:2: Two"
    assert await call(tmp_path, "files.search", text="two", match_case=True) == "Nothing found for 'two'."


async def test_an_empty_workspace_says_so(tmp_path: Path) -> None:
    assert await call(tmp_path, "files.list") == "(empty)"


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("files.read", {"path": "none"}, "none does not exist"),
        ("files.read", {"path": "../x"}, "must not hold .."),
        ("files.read", {"path": "."}, "a file's name is needed"),
        ("files.list", {"path": "none"}, "none does not exist"),
        ("files.write", {"path": "a", "content": "x" * (MAX_FILE_BYTES + 1)}, "content"),
        ("files.write", {"path": "/a", "content": "x"}, "must be relative"),
    ],
)
async def test_what_goes_wrong_is_told(tmp_path: Path, name: str, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ToolError, match=why):
        await call(tmp_path, name, **arguments)


async def test_what_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ToolError, match="is not text: 3 bytes"):
        await call(tmp_path, "files.read", path="image")
    assert await call(tmp_path, "files.search", text="x") == "Nothing found for 'x'."


async def test_many_matches_are_bounded_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "many").write_text("hit\n" * 1000)
    lines = (await call(tmp_path, "files.search", text="hit")).splitlines()
    assert len(lines) == MAX_MATCHES + 1
    assert lines[-1] == f"[and more: only the first {MAX_MATCHES} are shown]"


async def test_the_time_is_told_in_a_time_zone(tmp_path: Path) -> None:
    assert (await call(tmp_path, "time.now", time_zone="Asia/Tokyo")).endswith("Asia/Tokyo)")
    assert "+09:00" in await call(tmp_path, "time.now", time_zone="Asia/Tokyo")
    for wrong in ("Nowhere", "../etc/passwd", "/etc/passwd", ""):
        with pytest.raises(ToolError, match="no time zone"):
            await call(tmp_path, "time.now", time_zone=wrong)


def test_only_what_changes_something_asks() -> None:
    tools = builtin_toolbox().offered(("*",))
    assert {name for name, tool in tools.items() if tool.effect is not Effect.ALLOW} == {"files.write"}
    assert tools["files.write"].effect is Effect.ASK


def test_patterns_choose_tools() -> None:
    toolbox = builtin_toolbox()
    assert list(toolbox.offered(("files.*",))) == ["files.list", "files.read", "files.search", "files.write"]
    assert list(toolbox.offered(("time.now", "math.evaluate", "none"))) == ["math.evaluate", "time.now"]
    assert list(toolbox.offered(())) == []
