"""The optimizer."""

from typing import cast

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["Adam"]


class Adam:
    """Adam with PyTorch's defaults, through its functional form.

    To construct a ``torch.optim.Optimizer`` imports PyTorch's compiler, which takes longer than
    many a lap of a small experiment; and the state here is plain tensors, which are easy to keep.

    Arguments:
        weights: The weights, which it moves in their place.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.state = {
            "exp_avg": [torch.zeros_like(w) for w in weights],
            "exp_avg_sq": [torch.zeros_like(w) for w in weights],
            "step": [torch.zeros((), device=w.device) for w in weights],
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves the weights along their gradients, which it then drops.

        Arguments:
            rate: The learning rate.
        """
        adam(
            self.weights,
            [cast(Tensor, w.grad) for w in self.weights],
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            [],
            self.state["step"],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        for w in self.weights:
            w.grad = None
