r"""Data-parallel training: several processes, each with its part of every batch.

Each process holds all weights and draws the whole batch's times and noise, of which it takes its
part; the gradients of the parts are added with the parts' shares, so that their sum is the whole
batch's gradient, and every process takes the same step. Without other processes nothing is changed.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["add", "is_first", "part", "rank", "share", "size"]


def size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the place of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Tells whether this is the process that writes files."""
    return rank() == 0


def part(count: int) -> tuple[slice, float]:
    """Returns the rows of a batch that this process takes, and their share of the batch."""
    first, last = (count * (rank() + i) // size() for i in (0, 1))
    return slice(first, last), (last - first) / count


def add(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by their sums over all processes, which are the same bits in each."""
    if size() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(total.view_as(t))


def share(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by those of the first process."""
    tensors = list(tensors)
    if size() == 1 or not tensors:
        return
    for t in tensors:
        t.mul_(is_first())
    add(tensors)
