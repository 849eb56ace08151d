"""RFC 6962 Merkle trees, as whoever verifies needs them: roots, and proofs that are checked (RFC 9162, 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return sha256(b"\x00" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that leaves are added to; it remembers its right edge alone."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Go on after `size` leaves; `hashes`: the roots of the complete subtrees over these, the largest first."""
        if size < 0 or len(hashes) != size.bit_count() or any(len(each) != 32 for each in hashes):
            raise ValueError(f"these are not the {size.bit_count()} subtrees of {size} leaves")
        self.size = size
        self._hashes = list(hashes)

    def add(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        size = self.size
        while size & 1:
            leaf = _node(self._hashes.pop(), leaf)
            size >>= 1
        self._hashes.append(leaf)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The root."""
        if not self._hashes:
            return sha256(b"").digest()
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = _node(left, root)
        return root


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf of this hash is the `index`-th of the tree of this size and root."""
    if not 0 <= index < size or any(len(each) != 32 for each in (leaf, root, *proof)):
        return False
    at, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = _node(each, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = _node(found, each)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(first: int, second: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of the second size and root grew from that of the first; of an empty one nothing is shown."""
    if not 0 < first <= second or any(len(each) != 32 for each in proof):
        return False
    if first == second:
        return not proof and root1 == root2
    path = [root1, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    one = two = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            one, two = _node(each, one), _node(each, two)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            two = _node(two, each)
        at, last = at >> 1, last >> 1
    return last == 0 and one == root1 and two == root2
