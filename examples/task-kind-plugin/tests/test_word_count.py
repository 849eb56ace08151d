"""The kind alone: `Rehearsal` stands in for the server."""

from __future__ import annotations

import asyncio

import pytest
from stationmaster_server.tasks.kinds.base import KindFailed
from stationmaster_server.tasks.kinds.rehearsal import Rehearsal
from stationmaster_word_count.kind import WordCount, WordCountPayload


def test_words_are_counted() -> None:
    job = Rehearsal(WordCountPayload(texts=("one two", "two")))
    done = asyncio.run(WordCount().run(job))
    assert done.result == {"words": 3, "most": {"two": 2, "one": 1}}
    assert [how_far.fraction for how_far in job.told] == [0.5, 1.0]


def test_it_goes_on_from_its_checkpoint() -> None:
    job = Rehearsal(WordCountPayload(texts=("one", "two")), checkpoint={"next": 1, "words": {"one": 1}}, attempt=2)
    done = asyncio.run(WordCount().run(job))
    assert done.result["words"] == 2


def test_texts_without_words_fail_for_good() -> None:
    with pytest.raises(KindFailed) as failed:
        asyncio.run(WordCount().run(Rehearsal(WordCountPayload(texts=("", " ")))))
    assert not failed.value.retryable
