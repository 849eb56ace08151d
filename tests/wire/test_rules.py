"""Rules are told in words that whoever writes the text understands."""

from __future__ import annotations

import pytest
from stationmaster_server.wire import rules

ACTION = (
    "custom. and one to four words with points between them, such as custom.invoice.approve; a word is letters, digits,"
    " - and _, beginning with a letter, at most 41 characters"
)
ID = "small letters, digits and -, beginning with a letter, at most 63 characters"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("^[a-z][a-z0-9-]{0,62}$", f"does not fit: write {ID}"),
        ("^([a-z][a-z0-9-]{0,62})?$", f"does not fit: write {ID}"),
        ("^tasks/[a-z][a-z0-9-]{0,62}$", f"does not fit: write tasks/ID, where ID is {ID}"),
        ("^sessions/([0-9a-f-]{36}|-)$", "does not fit: write sessions/UUID or sessions/-"),
        (
            "^(users|organizations)/[0-9a-f-]{36}/quota$",
            "does not fit: write users/UUID/quota or organizations/UUID/quota",
        ),
        ("^workspaces/[0-9a-f-]{36}/files/", "does not fit: write workspaces/UUID/files/PATH"),
        (r"^[^\x00-\x1f\x7f]*$", "leave out line breaks and other control characters"),
        (
            r"^custom(\.[a-zA-Z][a-zA-Z0-9_-]{0,40}){1,4}$",
            f"does not fit: write {ACTION}",
        ),
        ("^[xyz]{3}$", ""),
    ],
)
def test_a_pattern_is_told_in_words(pattern: str, said: str) -> None:
    assert rules.of_pattern(pattern) == said


def test_a_length_of_time_is_told_in_its_largest_unit() -> None:
    rule = "must be greater than or equal to 10s and less than or equal to 31536000s"
    assert rules.of_time(rule) == "must be at least 10 s and at most 365 days"
    assert rules.of_time("must be less than or equal to 3600s") == "must be at most 1 hour"
