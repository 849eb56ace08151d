"""Resource names, from names or from bare ids."""


def full(collection: str, name: str) -> str:
    """`sessions/…` from an id or from the name itself."""
    return name if "/" in name else f"{collection}/{name}"


def last(name: str) -> str:
    """The id at the end of a name."""
    return name.rpartition("/")[2]
