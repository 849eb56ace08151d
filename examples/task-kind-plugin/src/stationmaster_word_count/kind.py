"""The kind `word_count`: how many words there are, and which are the most frequent."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Payload

_EVERY = 100  # texts between two checkpoints


class WordCountPayload(Payload):
    """What is counted. The server checks it when an execution is submitted, and names the field that is wrong."""

    texts: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)]
    """Each is counted by itself."""
    most: Annotated[int, Field(ge=1, le=100)] = 10
    """How many of the frequent words are told."""


class WordCount:
    """One object serves all executions at once, so it keeps nothing of any of them."""

    name: ClassVar[str] = "word_count"
    payload: ClassVar[type[BaseModel]] = WordCountPayload

    async def run(self, job: Job[WordCountPayload]) -> Done:
        """Count. After a crash it goes on from the checkpoint, with another attempt."""
        texts = job.payload.texts
        state = job.checkpoint or {"next": 0, "words": {}}
        words = Counter[str](state["words"])
        for number in range(int(state["next"]), len(texts)):
            words.update(texts[number].lower().split())
            job.progress((number + 1) / len(texts), f"text {number + 1}", {"words": words.total()})
            if (number + 1) % _EVERY == 0:
                await job.save({"next": number + 1, "words": dict(words)})
        if not words:
            # Another attempt would find no more words.
            raise KindFailed("none of the texts has a word", reason="NO_WORDS", retryable=False)
        job.log(f"{words.total()} words in {len(texts)} texts")
        return Done({"words": words.total(), "most": dict(words.most_common(job.payload.most))})
