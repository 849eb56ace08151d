"""Why a side of a measure cannot run."""

from __future__ import annotations


class Skipped(Exception):
    """This side cannot run on this machine; the message says why, in one line."""
