"""Why a start failed, told to the person who started it."""

from __future__ import annotations


class StartupError(Exception):
    """A fault of the installation: one line that says what is wrong and what to do about it."""

    exit_code = 1
