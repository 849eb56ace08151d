"""The files of the model: which they are, and whether those in a folder are they. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODEL = "all-minilm-l6-v2"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a file must be."""

    size_bytes: int
    sha256: str


FILES: Mapping[str, ModelFile] = {
    CONFIG: ModelFile(612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    TOKENIZER: ModelFile(466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    WEIGHTS: ModelFile(90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
}


class ModelFilesError(Exception):
    """The files of the model are not what they should be; the message says which, and what to do."""


def present(folder: Path) -> bool:
    """Whether files of the right names and sizes are there; nothing is read."""
    return all(_size(folder / name) == wanted.size_bytes for name, wanted in FILES.items())


def verify(folder: Path) -> None:
    """Read all of them. Raises ModelFilesError for one that is missing or another."""
    for name, wanted in FILES.items():
        path = folder / name
        if not path.is_file():
            raise ModelFilesError(f"{path} is missing: stationmaster-server models fetch")
        if digest(path) != wanted.sha256:
            text = f"{path} is not the file of the model {MODEL} (its SHA-256 is another): it is not used"
            raise ModelFilesError(f"{text}; have it fetched anew: stationmaster-server models fetch")


def digest(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
