"""Blocks of observations, the units of random streams, and shards, the units of jobs.

Blocks depend on the configuration alone and shards are whole blocks, so that the number of shards
cannot change a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Block", "Shard", "blocks", "whole_blocks"]


@dataclass(frozen=True)
class Block:
    """Some consecutive observations of a split.

    Arguments:
        number: Its number among all blocks, which selects its random stream.
        split: The split.
        rows: The rows of the split.
        repeat: Which of the samples of these observations it is for, from 0.
    """

    number: int
    split: str
    rows: slice
    repeat: int

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start


def blocks(counts: Mapping[str, int], size: int, repeats: int = 1) -> list[Block]:
    """Returns the blocks of all splits, the first of each repeat after the last of the one before.

    Arguments:
        counts: The number of observations of each split.
        size: The number of observations in a block; the last one of a split may have fewer.
        repeats: How often every observation is sampled.
    """
    places = [
        (repeat, split, slice(start, min(start + size, count)))
        for repeat in range(repeats)
        for split, count in counts.items()
        for start in range(0, count, size)
    ]
    return [Block(n, split, rows, repeat) for n, (repeat, split, rows) in enumerate(places)]


def whole_blocks(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Returns how many observations of each split are left without a last block that is not full.

    Arguments:
        counts: The number of observations of each split.
        size: The number of observations in a block.
    """
    return {split: count - count % size for split, count in counts.items()}


@dataclass(frozen=True)
class Shard:
    """A part of the blocks.

    Arguments:
        number: Which one, from 1.
        count: The number of shards.
    """

    number: int = 1
    count: int = 1

    def of(self, everything: Sequence[Block]) -> list[Block]:
        """Returns the shard's blocks, which are consecutive."""
        first, last = (n * len(everything) // self.count for n in (self.number - 1, self.number))
        return list(everything[first:last])
