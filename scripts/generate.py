"""Make `generated/` from `protos/`; with --check, only say whether it is up to date.

`buf generate` gives the messages and the types, grpc_tools.protoc the gRPC stubs, and this script the package markers.
The result never depends on what was there before, so a file whose proto is gone goes too.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
# `buf` stays a namespace package: other distributions may put modules beside ours.
PACKAGES = ("stationmaster", "stationmaster/v1")


def services() -> list[Path]:
    """The files of ours that declare a service; the others need no gRPC stubs."""
    files = sorted((PROTOS / "stationmaster").rglob("*.proto"))
    return [file for file in files if any(line.startswith("service ") for line in file.read_text().splitlines())]


def generate(parent: Path) -> Path:
    """Generate everything into `parent / "generated"` and return that folder."""
    subprocess.run([ROOT / ".venv/bin/buf", "generate", "--output", parent], cwd=ROOT, check=True)
    target = parent / GENERATED.name
    if stubs := services():
        command: list[str | Path] = [sys.executable, "-m", "grpc_tools.protoc", "-I", PROTOS]
        command += [f"--grpc_python_out={target}", *stubs]
        subprocess.run(command, cwd=ROOT, check=True)
    for types in target.rglob("*_pb2_grpc.pyi"):
        if not types.with_suffix(".py").exists():
            types.unlink()  # mypy-protobuf writes them for files without a service too
    for package in PACKAGES:
        folder = target / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    (target / PACKAGES[0] / "py.typed").touch()
    return target


def contents(folder: Path) -> set[Path]:
    """Every file below `folder`, relative to it, without what an interpreter leaves behind."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder) for path in files}


def differences(fresh: Path) -> list[Path]:
    """The files in which `generated/` differs from a fresh result, missing and superfluous ones among them."""
    ours, theirs = contents(GENERATED), contents(fresh)
    changed = {path for path in ours & theirs if not filecmp.cmp(GENERATED / path, fresh / path, shallow=False)}
    return sorted((ours ^ theirs) | changed)


def main() -> int:
    """Generate or check; 1 when the check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when generated/ is out of date")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        stale = differences(fresh)
        if check:
            for path in stale:
                print(f"out of date: {GENERATED.name}/{path} (run `make generate`)", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            replace(fresh / path, GENERATED / path)
    print(f"generated: {len(stale)} files changed")
    return 0


def replace(source: Path, destination: Path) -> None:
    """Bring one file up to date, leaving untouched ones alone so that nobody's build sees them as new."""
    if source.exists():
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    else:
        destination.unlink()


if __name__ == "__main__":
    sys.exit(main())
