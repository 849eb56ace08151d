"""How long texts are cut into pieces that an encoder reads to their end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.embedding.pieces import pieces

MOST = 24


@given(st.text(alphabet=st.sampled_from("ab.\n 字é\u2003"), max_size=4000))
def test_pieces_are_the_text_without_what_is_blank_between_them(text: str) -> None:
    found = pieces(text)
    assert all(text[one.start :].startswith(one.text) for one in found)
    assert all(one.text.strip() for one in found)
    assert "".join("".join(one.text.split()) for one in found) == "".join(text.split()) or len(found) == MOST
    assert all(one.start + len(one.text) <= other.start for one, other in pairwise(found))


def test_a_short_text_is_one_piece_and_a_blank_one_none() -> None:
    assert [(one.start, one.text) for one in pieces("  Hello, world. \n")] == [(2, "Hello, world.")]
    assert pieces(" \n\t ") == []


def test_pieces_end_with_paragraphs_or_sentences_where_there_are_some() -> None:
    paragraphs = [f"Paragraph {n}. " + "It says a little. " * 30 for n in range(4)]
    assert [one.text for one in pieces("\n\n".join(paragraphs))] == [one.strip() for one in paragraphs]
    assert all(one.text.endswith(".") for one in pieces("A sentence of some words. " * 200))


def test_pieces_of_dense_scripts_are_shorter() -> None:
    assert max(len(one.text) for one in pieces("备份数据库" * 300)) == 300
    assert max(len(one.text) for one in pieces("x" * 3000)) == 900


def test_of_a_very_long_text_only_the_beginning_is_cut() -> None:
    assert len(pieces("word " * 100_000)) == MOST
