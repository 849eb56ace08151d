"""The turn loop: ask the model, decide about its tool calls, run them, ask again, until an answer has no calls.

What comes next follows from the history and the results alone, so a turn goes on, on any server, from the last event
that became durable. Calls run one after another, in their order, and none before all that need somebody's permission
have it: what a person is asked about has not happened in part while they read the question.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from pydantic_ai.messages import InstructionPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from stationmaster_server.agents.prices import Prices, estimate_tokens, most_tokens
from stationmaster_server.agents.providers import ModelClient
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    HistoryMessage,
    PermissionNeeded,
    RuntimeFailure,
    ToolCall,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.agents.runtimes import calls
from stationmaster_server.agents.runtimes.answer import Question, ask
from stationmaster_server.agents.runtimes.bounds import output_tokens
from stationmaster_server.agents.runtimes.messages import Conversation
from stationmaster_server.agents.runtimes.offer import Offer
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.errors import Reason

# A turn of a model that never stops calling tools ends here, whatever its limits say.
MAX_STEPS = 1_000


class TurnLoop:
    """One run of a turn with one model client."""

    def __init__(
        self,
        turn: TurnInput,
        client: ModelClient,
        offer: Offer,
        prices: Prices,
        *,
        retries: Retries,
        tool_deadline: timedelta,
    ) -> None:
        self._turn = turn
        self._client = client
        self._offer = offer
        self._prices = prices
        self._retries = retries
        self._tool_deadline = tool_deadline
        self._conversation = Conversation(turn.history, offer.wire_names)

    async def run(self) -> AsyncGenerator[TurnEvent, None]:
        """Yields what happens; see `Runtime.run`."""
        step, newest = self._turn.step, self._turn.history[-1]
        waiting = tuple(part for part in newest.parts if isinstance(part, ToolCall))
        results = dict(self._turn.results)
        if newest.role == "assistant" and not waiting:
            return
        while True:
            if waiting:
                running = calls.run_all(waiting, results, self._offer.offered, self._turn, self._tool_deadline)
                async with aclosing(running) as events:
                    async for event in events:
                        if isinstance(event, ToolsCompleted):
                            self._conversation.append(HistoryMessage("tool", event.results))
                        yield event
                        if isinstance(event, PermissionNeeded):
                            return
            question = self._question(step)
            async with aclosing(ask(question, self._prices, self._retries)) as answer:
                async for said in answer:
                    yield said
                    if isinstance(said, AnswerCompleted):
                        self._conversation.append(HistoryMessage("assistant", said.parts))
                        waiting, results = said.calls, {}
            if not waiting:
                return
            step += 1

    def _question(self, step: int) -> Question:
        if step > MAX_STEPS:
            raise RuntimeFailure(Reason.LIMIT_REACHED, f"the turn took more than {MAX_STEPS} model calls")
        conversation, client, spec = self._conversation, self._client, self._turn.spec
        instructions = "\n\n".join(filter(None, (spec.instructions, *conversation.system)))
        estimate = conversation.estimated_tokens + estimate_tokens(instructions) + self._offer.estimated_tokens
        most = conversation.most_tokens + most_tokens(instructions) + self._offer.most_tokens
        return Question(
            step=step,
            model_id=spec.model,
            model=client.model,
            breaker=client.breaker,
            messages=conversation.messages,
            parameters=ModelRequestParameters(
                function_tools=self._offer.definitions,
                instruction_parts=[InstructionPart(instructions)] if instructions else [],
            ),
            settings=self._settings(most),
            tools=self._offer.names,
            known_calls=frozenset(conversation.known_calls),
            estimated_input_tokens=estimate,
            most_input_tokens=most,
            own_key=client.own_key,
        )

    def _settings(self, input_tokens: int) -> ModelSettings:
        spec = self._turn.spec
        wanted = spec.max_output_tokens or self._client.max_output_tokens
        most = output_tokens(self._turn, self._prices, wanted, input_tokens)
        settings = ModelSettings(max_tokens=most, cache=True)
        if spec.temperature is not None:
            settings["temperature"] = spec.temperature
        return settings
