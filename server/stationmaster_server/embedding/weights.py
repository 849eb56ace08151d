"""The numbers of a model in a safetensors file, mapped into memory: every process shares the same pages of them.

The format: https://github.com/huggingface/safetensors (eight bytes that tell the length of a JSON header, the header,
the numbers).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[numpy.float32]"

_LONGEST_HEADER = 1_000_000


def read_weights(path: Path) -> Mapping[str, Array]:
    """The arrays of 32-bit floats in the file, by name; others are left out. Nothing of them is read here.

    Raises OSError; ValueError when it is no such file.
    """
    with path.open("rb") as file:
        length = _header_length(file.read(8), path)
        header = file.read(length)
    try:
        entries: dict[str, Any] = json.loads(header)
    except ValueError:
        raise ValueError(f"{path} is no safetensors file: its header cannot be read") from None
    numbers = numpy.memmap(path, dtype=numpy.uint8, mode="r", offset=8 + length)
    return {name: _array(numbers, entry) for name, entry in entries.items() if entry.get("dtype") == "F32"}


def _header_length(head: bytes, path: Path) -> int:
    length: int = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 0 < length <= _LONGEST_HEADER:
        raise ValueError(f"{path} is no safetensors file: it does not begin with the length of a header")
    return length


def _array(numbers: NDArray[numpy.uint8], entry: Mapping[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(numbers):
        raise ValueError("the model's file is cut short")
    return numpy.asarray(numbers[begin:end]).view("<f4").reshape(entry["shape"])
