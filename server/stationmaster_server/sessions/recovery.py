"""What becomes of a turn whose server died: resumed at its last durable step, or ended with everything it brought."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from stationmaster_server.db.model import Tenant
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import Event
from stationmaster_server.sessions.events import DELTAS
from stationmaster_server.sessions.model import Partial, RecoveryPolicy, Turn

MAX_ATTEMPTS = 5
"""A turn that took its server down so often is not tried again."""

_PAGE = 500


class Recovery(Enum):
    """What to do with a turn that was running."""

    RESUME = auto()
    INTERRUPT = auto()


def decide(policy: RecoveryPolicy, *, call_in_flight: bool, attempts: int) -> Recovery:
    """By default a turn is resumed unless a tool call was in flight, which may have had its effect already."""
    if attempts >= MAX_ATTEMPTS or policy is RecoveryPolicy.INTERRUPT:
        return Recovery.INTERRUPT
    if policy is RecoveryPolicy.RESUME or not call_in_flight:
        return Recovery.RESUME
    return Recovery.INTERRUPT


async def partial_answer(log: EventLog, tenant: Tenant, turn: Turn) -> Partial:
    """What the step that was cut had brought: its deltas that no message and no restart has replaced."""
    partial = Partial()
    after = max(turn.first_sequence - 1, 0)
    while page := await log.read(tenant, turn.session_id, after, _PAGE):
        partial = _gather(partial, page, str(turn.id))
        after = page[-1].sequence
    return partial


def _gather(partial: Partial, page: Sequence[Event], turn: str) -> Partial:
    for event in page:
        if event.body.get("turn") != turn:
            continue
        if event.kind in ("message_added", "answer_restarted"):
            partial = Partial()
        elif event.kind in DELTAS:
            text = event.body["text"] if event.kind == "text_delta" else ""
            partial = Partial(partial.text + text, partial.first_delta or event.sequence, event.sequence)
    return partial
