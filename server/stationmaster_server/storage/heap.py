"""Memory of large transfers: the C library is to keep what one piece of a file used for the next.

glibc gives buffers of a mebibyte back to the system as they are freed, and gets them again page by page: with large
files that costs more than reading and hashing them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

LARGE_BYTES = 16 * 1024 * 1024
"""Smaller files are over before it pays."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_WHILE = {_TRIM_THRESHOLD: 8 * 1024 * 1024, _MMAP_THRESHOLD: 4 * 1024 * 1024}
# Where glibc's own adjustments end up in a server like this.
_ELSE = {_TRIM_THRESHOLD: 2 * 1024 * 1024, _MMAP_THRESHOLD: 1024 * 1024}


class _Transfers:
    """Counts those that go on; on the event loop alone."""

    count = 0


@contextmanager
def keeping(size_bytes: int) -> Iterator[None]:
    """During the body some mebibytes that are freed stay with the process, if a file is large; then they are given
    back. Does nothing where the C library is another.
    """
    if size_bytes < LARGE_BYTES:
        yield
        return
    _Transfers.count += 1
    if _Transfers.count == 1:
        _set(_WHILE)
    try:
        yield
    finally:
        _Transfers.count -= 1
        if not _Transfers.count:
            _set(_ELSE)
            _call("malloc_trim")(0)


def _set(options: dict[int, int]) -> None:
    for option, value in options.items():
        _call("mallopt")(option, value)


@cache
def _call(name: str) -> Callable[..., int]:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return lambda *_: 0
    return function
