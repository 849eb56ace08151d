"""What the splitter promises of any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stationmaster_server.tasks.process.measure import Measure
from stationmaster_server.tasks.process.model import Cut, Piece, Splitting, Unit
from stationmaster_server.tasks.process.splitter import split

LINES = st.sampled_from(
    [
        "",
        "   ",
        "# Title",
        "## Below #",
        "Underlined",
        "=====",
        "---",
        "```python",
        "```",
        "~~~~",
        "    indented(code)",
        "- an item of a list",
        "1. first, with more words. And another sentence! Is it?",
        "| a | table |",
        "Das ist ein Satz. Hier ist noch einer; er ist länger als der erste.",
        "これは文です。もう一つの文です。",
        "x" * 150,
        "emoji 👩‍👩‍👧‍👦 and é",
    ]
)
TEXTS = st.one_of(st.lists(LINES, max_size=40).map("\n".join), st.text(max_size=400))
WAYS = st.builds(
    lambda size, share, unit, cut: Splitting(size, size * share // 100, unit, cut),
    st.integers(32, 300),
    st.integers(0, 50),
    st.sampled_from(Unit),
    st.sampled_from(Cut),
)


def covered(text: str, pieces: list[Piece]) -> set[int]:
    return {at for piece in pieces for at in range(piece.start, piece.end)}


@settings(max_examples=400, deadline=None)
@given(TEXTS, WAYS)
def test_pieces_are_spans_that_cover_the_text_in_order_and_have_the_size(text: str, how: Splitting) -> None:
    pieces = split(text, how)
    measure = Measure(text, how.unit)
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert piece.text.strip()
        assert measure.length(piece.start, piece.end) <= measure.limit(how.size)
    missing = set(range(len(text))) - covered(text, pieces)
    assert all(text[at].isspace() for at in missing)
    for before, after in pairwise(pieces):
        assert before.start < after.start
        assert before.end < after.end
        if after.start < before.end:
            assert measure.length(after.start, before.end) <= measure.limit(how.overlap)


@given(TEXTS, WAYS)
def test_the_same_text_is_split_the_same_way(text: str, how: Splitting) -> None:
    assert split(text, how) == split(text, how)


@given(st.text(max_size=200), st.integers(0, 60))
def test_lengths_in_tokens_are_a_quarter_of_the_bytes(text: str, limit: int) -> None:
    measure = Measure(text, Unit.TOKENS)
    assert measure.length(0, len(text)) == len(text.encode("utf-8", "surrogatepass"))
    end = measure.furthest(0, limit)
    assert measure.length(0, end) <= limit
    assert end == len(text) or measure.length(0, end + 1) > limit
    start = measure.earliest(len(text), limit)
    assert measure.length(start, len(text)) <= limit
    assert start == 0 or measure.length(start - 1, len(text)) > limit


def test_a_fence_that_fits_is_never_cut() -> None:
    fence = "```python\n" + "\n".join(f"line_{n} = {n}\n" for n in range(8)) + "```"
    text = "\n\n".join(f"Some words before number {n}.\n\n{fence}\n\nAnd after." for n in range(6))
    for cut in Cut:
        pieces = split(text, Splitting(len(fence) + 90, 60, cut=cut))
        assert sum(piece.text.count(fence) for piece in pieces) >= 6
        assert all(piece.text.count("```") % 2 == 0 for piece in pieces)


def test_a_fence_that_is_too_long_is_cut_between_lines() -> None:
    text = "```\n" + "\n".join(f"line {n} of many" for n in range(40)) + "\n```"
    pieces = split(text, Splitting(100, 0))
    lines = [line for piece in pieces for line in piece.text.splitlines()]
    assert lines == text.splitlines()


def test_each_piece_knows_the_headings_above_it() -> None:
    text = "# One\n\nfirst\n\n## Two\n\nsecond\n\n```\n# no heading\n```\n\nThree\n-----\n\nthird\n\n# Four\n\nfourth"
    pieces = split(text, Splitting(400, 0))
    assert [piece.headings for piece in pieces] == [("One",), ("One", "Two"), ("One", "Three"), ("Four",)]


def test_a_heading_stays_with_what_is_below_it() -> None:
    text = "\n\n".join(f"## Part {n}\n\n{'word ' * 12}" for n in range(5))
    for piece in split(text, Splitting(160, 0, cut=Cut.PARAGRAPHS)):
        assert not piece.text.splitlines()[-1].startswith("#")


def test_a_piece_begins_with_whole_words_of_the_one_before() -> None:
    text = " ".join(f"word{n}" for n in range(200))
    pieces = split(text, Splitting(200, 40))
    for before, after in pairwise(pieces):
        shared = text[after.start : before.end]
        assert 20 <= len(shared) <= 40
        assert shared.split()[0] in before.text.split()


@pytest.mark.parametrize(
    "part", ["\n", "# \n", "a ", ".", "`", "```\n", "# a\n", " ", "。", ".)", "\n- ", "#", "a\n=\n", "|", "é", "x"]
)
def test_the_time_grows_with_the_text_and_not_with_its_square(part: str) -> None:
    # With its square, this would run into the time limit of tests.
    text = "# " + part * (400_000 // len(part))
    pieces = split(text, Splitting(1000, 100, Unit.TOKENS, Cut.SENTENCES))
    assert pieces[-1].end == len(text.rstrip())
