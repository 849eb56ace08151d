"""What a turn and its session have used, and what the model call under way may use at most."""

from __future__ import annotations

import logging
from dataclasses import replace
from uuid import UUID

from stationmaster_server.agents.model import Limits
from stationmaster_server.agents.prices import Prices, Tokens, estimate_tokens
from stationmaster_server.agents.runtime import ModelCallStarted, TurnInput, Usage
from stationmaster_server.identity.quotas import Left, Reservation
from stationmaster_server.sessions import limits
from stationmaster_server.sessions.model import Breach

_log = logging.getLogger(__name__)


class Spending:
    """The account of one attempt at a turn: everything that is used is counted here before it is written down."""

    def __init__(
        self, bounds: Limits, session_id: UUID, model: str, prices: Prices, session: Usage, turn: Usage
    ) -> None:
        self.session = session
        self.turn = turn
        self.reservation: Reservation | None = None
        """What is set aside of the day's quotas."""
        self.quota_left: Left | None = None
        self._limits = bounds
        self._session_id = session_id
        self._model = model
        self._prices = prices
        self._asked: ModelCallStarted | None = None
        self._wasted = self._most = Usage()

    def budgets(self, turn: TurnInput) -> TurnInput:
        """The input with what the turn may use."""
        return replace(turn, output_budget=self._output_tokens_left, cost_budget=self._cost_left)

    def most_with(self, call: ModelCallStarted) -> Usage | Breach:
        """What the step can have used when this call is over, its attempts before included; or the limit it breaks."""
        cost = self._prices.most(call.model, call.max_input_tokens, call.max_output_tokens)
        most = self._wasted + Usage(call.max_input_tokens, call.max_output_tokens, cost_micros=cost)
        return limits.before_model_call(self._limits, self.session, self.turn, most) or most

    def asked(self, call: ModelCallStarted, most: Usage, reservation: Reservation | None) -> None:
        """The call is reserved and may begin."""
        self._asked, self._most = call, most
        self.reservation = reservation

    def broken(self, reported: Usage) -> None:
        """The attempts so far have used this in vain."""
        self._wasted = self._most = self.believed(reported)
        self._asked = None

    def before_tool_call(self) -> Breach | None:
        """The limit that one more tool call breaks."""
        return limits.before_tool_call(self._limits, self.session, self.turn)

    def believed(self, reported: Usage) -> Usage:
        """What the step's model calls have used; of a report that cannot be true what was set aside."""
        believed = limits.within(reported, self._most)
        if believed is not reported:
            told = "model %s reported that a call of session %s used %s: not believed, it cannot be more than %s"
            _log.warning(told, self._model, self._session_id, reported, self._most)
        return believed

    def cut(self, text: str) -> Usage:
        """What a model call that was stopped after this text has used, as far as one can tell."""
        if self._asked is None:
            return self._wasted
        # The attempts before, whose provider may have said, were paid for as well.
        call = self._asked
        tokens = Tokens(call.estimated_input_tokens, min(estimate_tokens(text), call.max_output_tokens))
        cost, _ = self._prices.cost(call.model, tokens)
        used = Usage(tokens.input, tokens.output, cost_micros=cost, cost_estimated=True, model_calls=1)
        return self.believed(self._wasted + used)

    def count(self, used: Usage) -> None:
        """This was used."""
        self.turn = self.turn + used
        self.session = self.session + used

    def settled(self) -> None:
        """The step's model calls are paid for."""
        self.reservation = self._asked = None
        self._wasted = self._most = Usage()

    # What the attempts before have used of the step is not counted yet, and gone all the same.

    def _output_tokens_left(self, input_tokens: int) -> int | None:
        session, turn = self.session + self._wasted, self.turn + self._wasted
        left = limits.output_tokens_left(self._limits, session, turn, input_tokens)
        if self.quota_left is None or self.quota_left.tokens is None:
            return left
        wasted = self._wasted.input_tokens + self._wasted.output_tokens
        return _lower(left, max(self.quota_left.tokens - wasted - input_tokens, 0))

    def _cost_left(self) -> int | None:
        wasted = self._wasted
        left = limits.cost_left(self._limits, self.session + wasted, self.turn + wasted)
        if self.quota_left is None or self.quota_left.cost_micros is None:
            return left
        return _lower(left, max(self.quota_left.cost_micros - wasted.cost_micros, 0))


def _lower(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
