"""RFC 6962 Merkle trees: growing one, and which of its nodes prove what.

A tree that grows is a `Frontier`: the roots of the complete subtrees that its size is made of, the largest first. Node
`(level, number)` is the root of the complete subtree of the leaves from `number << level` on. `docs/formats/audit.md`
has the whole format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
TILE_HEIGHT = 5
TILE_WIDTH = 1 << TILE_HEIGHT


class Node(NamedTuple):
    """A complete subtree of `1 << level` leaves, number `number` of its level."""

    level: int
    number: int


class Range(NamedTuple):
    """The leaves from `start` up to, and without, `end`."""

    start: int
    end: int


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above two others."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree, all that is needed to make it grow and to know its root."""

    def __init__(self, size: int = 0, hashes: bytes = b"") -> None:
        """`hashes`: as `packed` gave them for this size."""
        if len(hashes) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees")
        self.size = size
        self._hashes = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]

    @property
    def packed(self) -> bytes:
        """The hashes one after another."""
        return b"".join(self._hashes)

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        return fold(self._hashes)

    def append(self, leaves: bytes) -> list[bytearray]:
        """Add leaf hashes, one after another; returns what each level of tiles has become longer by."""
        hashes, size, sha, height = self._hashes, self.size, sha256, TILE_HEIGHT
        tiles: list[bytearray] = [bytearray(leaves)]
        for at in range(0, len(leaves), HASH_BYTES):
            one = leaves[at : at + HASH_BYTES]
            level, rest = 0, size
            while rest & 1:
                one = sha(b"\x01" + hashes.pop() + one).digest()
                rest >>= 1
                level += 1
                if level % height == 0:
                    if level // height == len(tiles):
                        tiles.append(bytearray())
                    tiles[level // height] += one
            hashes.append(one)
            size += 1
        self.size = size
        return tiles


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, each smaller than the one before it."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """What the proof is made of that leaf `index` is in the tree of `size`: PATH(index, D[size]), RFC 6962, 2.1.1."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _largest_power_below(end - start)
        if index < middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(first: int, size: int) -> list[Range]:
    """What the proof is made of that the tree of `size` grew from that of `first`: PROOF(first, D[size]), 2.1.2."""
    if not 0 <= first <= size:
        raise ValueError("a tree does not shrink")
    if first == 0:
        return []
    start, end, path = 0, size, []
    while first < end:
        middle = start + _largest_power_below(end - start)
        if first <= middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(start, middle))
            start = middle
    if start:
        path.append(Range(start, end))
    return path[::-1]


def cover(leaves: Range) -> list[Node]:
    """The complete subtrees that a range of a proof, or one that begins at 0, consists of, from the left."""
    start, end = leaves
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


def range_hash(leaves: Range, node: Callable[[Node], bytes]) -> bytes:
    """The hash of a range of a proof."""
    return fold([node(each) for each in cover(leaves)])


def tile_of(node: Node) -> tuple[int, int]:
    """The level and the number of the tile that a node is computed from."""
    level, height = divmod(node.level, TILE_HEIGHT)
    return level, (node.number << height) >> TILE_HEIGHT


def in_tile(node: Node, tile: bytes) -> bytes:
    """A node's hash from the hashes of its tile."""
    height = node.level % TILE_HEIGHT
    first = (node.number << height) % TILE_WIDTH
    hashes = [tile[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(first, first + (1 << height))]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def _largest_power_below(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1
