"""The account of a turn: whatever is reported, no limit is ever passed."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.model import AgentSpec, Limits
from stationmaster_server.agents.prices import Price, Prices
from stationmaster_server.agents.runtime import ModelCallStarted, Ruling, TurnInput, Usage
from stationmaster_server.sessions.limits import lowest, with_portions
from stationmaster_server.sessions.model import Breach
from stationmaster_server.sessions.spending import Spending

PRICES = Prices({"m": Price(3_000_000, 15_000_000, 300_000, 3_750_000)})
LIMIT = st.one_of(st.none(), st.integers(0, 20_000))
LIMITS = st.builds(
    Limits,
    max_tokens_per_turn=LIMIT,
    max_tokens_per_session=LIMIT,
    max_cost_micros_per_turn=LIMIT,
    max_cost_micros_per_session=LIMIT,
)
FIGURE = st.one_of(st.integers(0, 2_000), st.just(2**62))
REPORT = st.builds(Usage, input_tokens=FIGURE, output_tokens=FIGURE, cached_input_tokens=FIGURE, cost_micros=FIGURE)
# No input at all stands for one that nobody could count, whose report is believed.
CALL = st.tuples(st.integers(1, 1_500), st.integers(16, 2_000), REPORT, st.sampled_from(["answer", "break", "cut"]))


def turn_input() -> TurnInput:
    """Whose budgets are asked for."""
    return TurnInput(
        organization_id=uuid4(),
        user_id=uuid4(),
        session_id=uuid4(),
        turn_id=uuid4(),
        spec=AgentSpec("m"),
        workspace=Path("/nonexistent"),
        history=(),
        results={},
        rulings=lambda call, default: Ruling(default),
    )


def holds(limits: Limits, session: Usage, turn: Usage) -> bool:
    """Whether no limit is passed."""
    pairs = (
        (limits.max_tokens_per_turn, turn.total_tokens),
        (limits.max_tokens_per_session, session.total_tokens),
        (limits.max_cost_micros_per_turn, turn.cost_micros),
        (limits.max_cost_micros_per_session, session.cost_micros),
    )
    return all(limit is None or used <= limit for limit, used in pairs)


@given(LIMITS, st.lists(CALL, max_size=12))
def test_no_report_passes_a_limit(limits: Limits, calls: list[tuple[int, int, Usage, str]]) -> None:
    spending = Spending(limits, uuid4(), "m", PRICES, Usage(), Usage())
    budgets = spending.budgets(turn_input())
    assert budgets.output_budget is not None
    wasted = Usage()
    for given_tokens, wanted, reported, end in calls:
        left = budgets.output_budget(given_tokens)
        made = max(16, wanted if left is None else min(wanted, left))
        call = ModelCallStarted(1, "m", given_tokens // 3, made, max_input_tokens=given_tokens)
        most = spending.most_with(call)
        if isinstance(most, Breach):
            break
        spending.asked(call, most, None)
        if end == "break":
            wasted += reported
            spending.broken(wasted)
            continue
        said = "x" * min(reported.output_tokens, 10_000)
        used = spending.believed(wasted + reported) if end == "answer" else spending.cut(said)
        spending.count(used)
        spending.settled()
        wasted = Usage()
        assert holds(limits, spending.session, spending.turn)
    spending.count(spending.cut(""))
    assert holds(limits, spending.session, spending.turn)


@given(LIMITS, st.integers(0, 5), st.integers(0, 5))
def test_portions_raise_the_limit_that_they_are_of_and_no_other(limits: Limits, turn: int, session: int) -> None:
    raised = with_portions(limits, {"max_tokens_per_turn": turn}, {"max_cost_micros_per_session": session})
    assert raised.max_tokens_per_session == limits.max_tokens_per_session
    for name, more in (("max_tokens_per_turn", turn), ("max_cost_micros_per_session", session)):
        before, after = getattr(limits, name), getattr(raised, name)
        assert after == (None if before is None else before * (1 + more))
    assert lowest(limits, raised) == limits
