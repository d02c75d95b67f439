"""A module of a user's own, as a network."""

import torch
from torch import Tensor, nn

from diem.errors import DiemError

__all__ = ["Conditioned"]


class Conditioned(nn.Module):
    """Calls a module with one noise conditioning variable a sample, and checks what it returns."""

    def __init__(self, module: nn.Module, name: str, exponential: bool):
        """Builds the network.

        Arguments:
            module: The module, which takes ``(x, t)``.
            name: Its name, for errors.
            exponential: Whether it is given ``sigma`` rather than ``log(sigma)``.
        """
        super().__init__()
        self.module, self.name, self.exponential = module, name, exponential

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the module.

        Arguments:
            x: The input, of shape ``(B, *event)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The output, of the shape of ``x``.

        Raises:
            DiemError: If the module returns something else.
        """
        t = t.expand(len(x))
        y = self.module(x, t.exp() if self.exponential else t)
        if not isinstance(y, torch.Tensor):
            raise DiemError(
                f"network {self.name!r} returns {type(y).__name__}, where a tensor is needed."
            )
        if y.shape != x.shape:
            raise DiemError(
                f"network {self.name!r} returns the shape {tuple(y.shape)} for x of shape"
                f" {tuple(x.shape)}, where the same shape is needed."
            )
        return y
