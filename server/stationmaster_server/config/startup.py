"""Why a start failed, told to the person who started it."""

from __future__ import annotations


class StartupError(Exception):
    """A fault of the installation: one line that says what is wrong and what to do about it."""

    exit_code = 1


class SettingsError(StartupError):
    """Settings that the server cannot start with; the message names each and says what to write.

    Whoever starts servers need not try again: nothing changes until somebody changes the settings.
    """

    exit_code = 78
    """EX_CONFIG of sysexits.h, which a command line that is wrong (2) and other faults (1) do not share."""
