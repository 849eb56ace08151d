"""Whatever is written as a template either is one or is refused; nothing else happens."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stationmaster_server.templating import engine
from stationmaster_server.templating.engine import Faulty
from stationmaster_server.templating.templates import is_template

TOKENS = (
    "{{ }} {% %} {# #} { } if else elif endif for in endfor x y xs loop . , : = | ( ) [ ] 'a' 1 2.5 + - * ** / // % ~"
    " == < not and is defined default upper join first set endset macro endmacro call endcall filter endfilter with"
    " endwith recursive raw endraw namespace range self caller true none __class__ include block"
)
PIECES = st.sampled_from([*TOKENS.split(), "\n"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PIECES, max_size=30).map(" ".join), JSON, JSON)
def test_a_text_is_filled_in_or_refused(text: str, x: object, xs: object) -> None:
    try:
        engine.outline(text)
    except Faulty:
        with pytest.raises(Faulty):
            engine.fill(text, {"x": x, "xs": xs})
    else:
        with contextlib.suppress(Faulty):
            engine.fill(text, {"x": x, "xs": xs})


@given(st.text())
def test_what_is_no_template_stays_as_it_is(text: str) -> None:
    if not is_template(text):
        assert engine.fill(text, {}) == text.replace("\r\n", "\n").replace("\r", "\n")


@given(JSON)
def test_values_come_out_as_texts_or_json(value: object) -> None:
    filled = engine.fill("{{ x }}", {"x": value})
    if isinstance(value, str):
        assert filled == value
    elif isinstance(value, (list, dict)):
        assert json.loads(filled) == value
