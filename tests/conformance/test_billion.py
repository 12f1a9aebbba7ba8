"""A log of a billion entries: a proof is a handful of tiles, whatever the size."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from rempart.bench.uniform_tree import UniformTree
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.log.integrate import read_edge
from rempart.ledger.log.merkle import consistency_proof, leaf_hash, verify_consistency, verify_inclusion
from rempart.ledger.log.tiles import Edge
from rempart.ledger.reading.prove import Prover, TileReader
from rempart.ledger.store.logfiles import read_grown

SIZE = 1_000_000_007
SIGNER = Signer("rempart.test/billion", bytes(32))
ENTRY = b'{"type":"request"}'
LEVELS = 4  # of tiles: 256^4 > SIZE
MEMORY_BYTES = 1 << 20


@pytest.fixture
def tree(tmp_path: Path) -> UniformTree:
    return UniformTree(tmp_path / "log", SIZE, ENTRY, SIGNER)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1_000, 65_536, 65_537, 200_000])
def test_it_is_the_tree_that_a_log_grows_entry_by_entry(tmp_path: Path, size: int) -> None:
    tree = UniformTree(tmp_path / "log", size, ENTRY, SIGNER)
    edge = Edge()
    for _ in range(size):
        edge.add(leaf_hash(ENTRY))
    assert tree.root(size) == edge.root() == read_edge(tmp_path / "log", size).root()


def test_any_entry_is_proved_from_a_few_tiles_in_little_memory(tree: UniformTree, tmp_path: Path) -> None:
    chance = random.Random(2026)
    indices = [0, 1, 255, 256, SIZE // 2, SIZE - 2, SIZE - 1, *(chance.randrange(SIZE) for _ in range(50))]
    for index in indices:
        tree.write(index)
    prover = Prover(tmp_path / "log")
    root = SIGNER.verifier.open(prover.checkpoint).root
    for index in indices:
        proven = Prover(tmp_path / "log").prove(index)
        assert len(proven.hashes) <= SIZE.bit_length()
        verify_inclusion(index, SIZE, leaf_hash(proven.entry), proven.hashes, root)
    tracemalloc.start()
    try:
        Prover(tmp_path / "log").prove(indices[-1])
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_a_proof_reads_no_more_than_two_tiles_a_level(tree: UniformTree, tmp_path: Path) -> None:
    tree.write(SIZE // 3)
    read: list[Path] = []

    def counted(partial: Path, full: Path) -> bytes:
        read.append(full)
        return read_grown(partial, full)

    reader = TileReader(tmp_path / "log", SIZE, counted)
    proof = consistency_proof(SIZE // 3 + 1, SIZE, reader.node)
    verify_consistency(SIZE // 3 + 1, SIZE, tree.root(SIZE // 3 + 1), tree.root(SIZE), proof)
    assert len(read) == len(set(read)) <= 2 * LEVELS
