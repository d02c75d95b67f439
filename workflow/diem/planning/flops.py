"""Counts the floating-point operations of what really runs, with PyTorch's counter.

It counts products of matrices, convolutions and attention, forward and backward; an addition and a
multiplication are two operations. Everything else is little, and is left out.
"""

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

__all__ = ["FlopCounter"]


def _attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# PyTorch's counter knows attention on GPUs only.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _Whole:
    """Tells the counter of no modules: its tracker refuses the gradients of network inputs."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class FlopCounter(FlopCounterMode):
    """A context in which operations are counted.

    Example:
        >>> with FlopCounter() as counter:
        ...     network(x, t)
        >>> counter.get_total_flops()
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_ATTENTION)
        self.mod_tracker = _Whole()  # type: ignore[assignment]  # its likeness, see there
