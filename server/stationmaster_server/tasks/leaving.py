"""What becomes of the session that an execution ran in: decided here, and by what is stored of it."""

from __future__ import annotations

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.model import RanIn
from stationmaster_server.tasks.services import TaskServices


async def leave_session(tx: Transaction, services: TaskServices, caller: Caller, ran_in: RanIn, why: str) -> None:
    """The execution has ended, was replaced, or begins anew elsewhere: its session ends, or at least its turn in it.

    In a session that is kept goes on what others have sent.
    """
    if ran_in.session_id is None:
        return
    if not ran_in.keep:
        await services.sessions.end(tx, caller, ran_in.session_id, why)
    elif ran_in.turn_id is not None:
        await services.sessions.stop_turn(tx, caller, ran_in.session_id, ran_in.turn_id, why)
