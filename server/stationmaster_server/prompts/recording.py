"""What is noted about renders."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from stationmaster_server.prompts.model import Selection


class Recorder:
    """Counts the renders of this process."""

    def __init__(self) -> None:
        self.renders: Counter[str] = Counter()

    def rendered(self, organization_id: UUID, selection: Selection, seconds: float, *, failed: bool) -> None:
        """A render that ended, well or not."""
        self.renders["failed" if failed else "ok"] += 1
