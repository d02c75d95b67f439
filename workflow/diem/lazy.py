"""PyTorch at its first use: Snakemake imports declarations at every start, and torch takes seconds.

Example:
    >>> from diem.lazy import torch
"""

from typing import TYPE_CHECKING, Any

__all__ = ["torch"]

if TYPE_CHECKING:
    import torch
else:

    class _Torch:
        """Stands for the module."""

        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = _Torch()
