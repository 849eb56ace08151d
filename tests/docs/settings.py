"""What each text takes for granted."""

from __future__ import annotations

from tests.docs.stage import Setting

SETTINGS: dict[str, Setting] = {}
