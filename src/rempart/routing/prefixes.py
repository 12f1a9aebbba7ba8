"""`PrefixTree.match`: which engines have seen the beginning of a prompt before (pure).

An engine keeps the KV cache of prompts that it has read; a prompt that begins alike is read faster there. The gateway
has no tokenizer and asks no engine what it keeps: it remembers where it sent each beginning, in blocks of bytes.

The idea is that of SMG (SGLang model gateway), policy `cache_aware`: an approximate radix tree of the texts that went
to each worker, which is followed unless the workers are out of balance; and of llm-d's prefix scorer (Gateway API
inference extension, "prefix cache aware plugin"): hashes of blocks, each over what stands before it, at most so many of
a prompt, in a bounded LRU memory. Nothing of their code is here.

A block's hash covers all before it and the tenant's root, so it names a node of the tree by its whole path: a mapping
from hashes to engines is the tree. A path is touched from its end to its beginning. A node is therefore always newer
than what hangs below it, and the oldest one is always a leaf.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from rempart import limits

_HASH_BYTES: Final = 8


def root_of(secret: bytes, tenant: str) -> bytes:
    """What all hashes of that tenant begin with; `secret` has at most 64 bytes and stays in this process."""
    return blake2b(tenant.encode(), key=secret, digest_size=16).digest()


def blocks(root: bytes, text: bytes) -> list[bytes]:
    """Hashes of the whole blocks of a text, the first ones; a rest that is no block has none."""
    size = limits.prefix_block_bytes
    running = blake2b(root, digest_size=_HASH_BYTES)
    found: list[bytes] = []
    for start in range(0, min(len(text), size * limits.prefix_blocks_max) - size + 1, size):
        running.update(text[start : start + size])
        found.append(running.copy().digest())
    return found


class Match(NamedTuple):
    """The longest beginning that an engine has seen."""

    depth: int
    """In blocks."""
    holders: int
    """Bit set of the engines that have seen that much; 0 when `depth` is 0."""


class PrefixTree:
    """Of one model. Engines are bits of an integer."""

    __slots__ = ("_nodes", "_nodes_max")

    def __init__(self, nodes_max: int) -> None:
        self._nodes: OrderedDict[bytes, int] = OrderedDict()
        """Hash of a block and all before it -> engines that hold it; the oldest first."""
        self._nodes_max = nodes_max

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, path: Sequence[bytes], among: int) -> Match:
        """`path` are `blocks`, `among` the bits of engines that come into question."""
        depth, holders = 0, 0
        for number, node in enumerate(path, 1):
            left = self._nodes.get(node, 0) & among
            if not left:
                break
            depth, holders = number, left
        return Match(depth, holders)

    def put(self, path: Sequence[bytes], holder: int) -> None:
        """That engine (one bit) reads this prompt now."""
        nodes = self._nodes
        for node in reversed(path):
            nodes[node] = nodes.get(node, 0) | holder
            nodes.move_to_end(node)
        while len(nodes) > self._nodes_max:
            nodes.popitem(last=False)

    def clear(self) -> None:
        self._nodes.clear()
