"""One text that an embedding server refuses keeps no other from its vector."""

from __future__ import annotations

import pytest
from stationmaster_server.embedding.each import embed_each
from stationmaster_server.embedding.embedder import TextRefused
from stationmaster_server.errors import Reason

from tests.embedding.picky import Picky, embedder_of


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_all_but_the_refused_texts_get_vectors_in_their_places(status: int) -> None:
    picky = Picky(["monster"], status)
    texts = [f"text {number}" for number in range(64)]
    texts[5], texts[40] = "a monster", "another monster"
    async with embedder_of(picky) as embedder:
        found = await embed_each(embedder, texts)
        wanted = await embedder.embed([text for text in texts if "monster" not in text])
    assert [at for at, one in enumerate(found) if isinstance(one, TextRefused)] == [5, 40]
    assert [one for one in found if not isinstance(one, TextRefused)] == wanted
    assert f"answered {status}" in str(found[5])
    assert len(picky.asked) < 40  # halves, not each by itself


async def test_a_server_that_refuses_everything_is_told_of_and_no_text_is_blamed() -> None:
    async with embedder_of(Picky([""])) as embedder:
        with pytest.raises(TextRefused, match=r"embedding\.openai") as told:
            await embed_each(embedder, ["one", "two"])
    assert told.value.reason is Reason.MODEL_UNAVAILABLE
