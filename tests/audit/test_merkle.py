"""Trees as RFC 6962 says, against vectors of others and against its definition, taken literally."""

from __future__ import annotations

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_client.transparency.tree import Tree, verify_consistency, verify_inclusion
from stationmaster_server.audit.merkle import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Frontier,
    Node,
    Range,
    consistency_ranges,
    cover,
    in_tile,
    inclusion_ranges,
    leaf_hash,
    range_hash,
    tile_of,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "merkle.json").read_text())
# github.com/transparency-dev/merkle, testonly/constants.go: leaves, and roots over the first n.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(each)) for each in INPUTS]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH, RFC 6962, 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH, RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(first: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF, RFC 6962, 2.1.2."""
    if first == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if first <= k:
        return [*naive_subproof(first, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(first - k, leaves[k:], False), naive_root(leaves[:k])]


class Grown:
    """A tree that grew in batches, and its tiles as the database has them."""

    def __init__(self, leaves: list[bytes], batches: list[int]) -> None:
        self.frontier = Frontier()
        self.tiles: dict[tuple[int, int], bytes] = {}
        at = 0
        for count in [*batches, len(leaves)]:
            batch = leaves[at : at + count]
            at += len(batch)
            size = self.frontier.size
            for level, hashes in enumerate(self.frontier.append(b"".join(batch))):
                first = size >> TILE_HEIGHT * level
                for offset in range(len(hashes) // 32):
                    tile = (level, (first + offset) // TILE_WIDTH)
                    self.tiles[tile] = self.tiles.get(tile, b"") + hashes[offset * 32 : offset * 32 + 32]

    def hashes(self, ranges: list[Range]) -> list[bytes]:
        """The hashes of ranges."""

        def node_of(node: Node) -> bytes:
            return in_tile(node, self.tiles[tile_of(node)])

        return [range_hash(each, node_of) for each in ranges]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_others_published(size: int) -> None:
    tree, reader = Frontier(), Tree()
    tree.append(b"".join(LEAVES[:size]))
    for leaf in LEAVES[:size]:
        reader.add(leaf)
    assert tree.root.hex() == reader.root.hex() == ROOTS[size]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda vector: vector["name"])
def test_inclusion_is_judged_as_others_judge_it(vector: dict[str, Any]) -> None:
    proof = [b64decode(each) for each in vector["proof"] or []]
    leaf, root = b64decode(vector["leafHash"]), b64decode(vector["root"])
    right = verify_inclusion(vector["leafIdx"], vector["treeSize"], leaf, proof, root)
    assert right is not vector["wantErr"]
    if right:
        grown = Grown(LEAVES[: vector["treeSize"]], [])
        if grown.frontier.root == root:
            assert grown.hashes(inclusion_ranges(vector["leafIdx"], vector["treeSize"])) == proof


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda vector: vector["name"])
def test_consistency_is_judged_as_others_judge_it(vector: dict[str, Any]) -> None:
    proof = [b64decode(each) for each in vector["proof"] or []]
    first, second = b64decode(vector["root1"]), b64decode(vector["root2"])
    right = verify_consistency(vector["size1"], vector["size2"], first, second, proof)
    assert right is not vector["wantErr"]
    if right:
        grown = Grown(LEAVES[: vector["size2"]], [])
        if grown.frontier.root == second:
            assert grown.hashes(consistency_ranges(vector["size1"], vector["size2"])) == proof


sizes = st.integers(min_value=1, max_value=1200)
batches = st.lists(st.integers(min_value=0, max_value=300), max_size=6)


@given(sizes, batches, st.data())
def test_proofs_of_a_tree_that_grew_in_batches_are_those_of_the_definition(
    size: int, batched: list[int], data: st.DataObject
) -> None:
    leaves = [sha256(number.to_bytes(4, "big")).digest() for number in range(size)]
    grown = Grown(leaves, batched)
    of = data.draw(st.integers(min_value=1, max_value=size))
    index = data.draw(st.integers(min_value=0, max_value=of - 1))
    first = data.draw(st.integers(min_value=0, max_value=of))
    root = naive_root(leaves[:of])
    path = grown.hashes(inclusion_ranges(index, of))
    assert path == naive_path(index, leaves[:of])
    assert verify_inclusion(index, of, leaves[index], path, root)
    proof = grown.hashes(consistency_ranges(first, of))
    assert proof == (naive_subproof(first, leaves[:of], True) if first else [])
    assert not first or verify_consistency(first, of, naive_root(leaves[:first]), root, proof)
    assert grown.frontier.root == naive_root(leaves)


@given(sizes, st.data())
def test_a_tree_goes_on_from_its_right_edge(size: int, data: st.DataObject) -> None:
    leaves = [sha256(number.to_bytes(4, "big")).digest() for number in range(size)]
    begin = data.draw(st.integers(min_value=0, max_value=size))
    before = Grown(leaves, []).hashes(
        [Range(n.number << n.level, (n.number + 1) << n.level) for n in cover(Range(0, begin))]
    )
    reader, again = Tree(begin, before), Frontier(begin, b"".join(before))
    for leaf in leaves[begin:]:
        reader.add(leaf)
    again.append(b"".join(leaves[begin:]))
    assert reader.root == again.root == naive_root(leaves)


def test_a_proof_of_a_large_tree_takes_few_tiles() -> None:
    size = 123_456_789_012
    for ranges in (inclusion_ranges(98_765_432_101, size), consistency_ranges(98_765_432_101, size)):
        assert len({tile_of(node) for each in ranges for node in cover(each)}) <= 3 * size.bit_length() // TILE_HEIGHT


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_ranges(index, size)


def test_a_frontier_must_fit_its_size() -> None:
    with pytest.raises(ValueError, match="complete subtrees"):
        Frontier(3, bytes(32))
