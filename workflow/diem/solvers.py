"""Linear solvers for a batch of independent systems."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["column", "conjugate_gradient", "dot"]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner product of each sample, of shape ``(B,)``."""
    return (a * b).flatten(1).sum(dim=1)


def column(a: Tensor, like: Tensor) -> Tensor:
    """Returns one number a sample ``(B,)`` in a shape that broadcasts with ``(B, *)``."""
    return a.reshape(-1, *(1,) * (like.ndim - 1))


def conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    iterations: int,
    tolerance: float = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""Solves a batch of systems :math:`S_i v_i = b_i` by conjugate gradients from zero.

    Every sample has its own step lengths and stops by its own residual, so that no result depends
    on a neighbour in the batch.

    A product may come with a by-product that is linear in its argument (here :math:`J^\top A^\top
    p`). Since the solution is :math:`v = \sum_k \alpha_k p_k`, the by-product of the solution is
    the sum of the by-products, and costs nothing more: ``n`` iterations call ``product`` ``n``
    times.

    The curvature :math:`p^\top S p` enters by its absolute value: the Jacobian of a network is not
    exactly symmetric and positive, and a step along a direction of negative curvature would go
    the wrong way.

    Arguments:
        product: Returns :math:`S p` and the by-product of ``p``.
        b: The right-hand sides, of shape ``(B, *)``.
        iterations: The most iterations.
        tolerance: A sample stops once its residual is at most this fraction of ``|b|``.

    Returns:
        The solutions, of shape ``(B, *)``, and their by-products.
    """
    v = torch.zeros_like(b)
    p, r = b, b
    rr = dot(r, r)
    floor = torch.clamp(rr * tolerance**2, min=torch.finfo(b.dtype).tiny)
    total = None

    for _ in range(iterations):
        active = rr > floor
        if tolerance > 0 and not active.any():
            break
        sp, extra = product(p)
        curvature = dot(p, sp).abs()
        # A direction without curvature leads nowhere.
        active = active & (curvature > 0)
        curvature = curvature.clamp(min=torch.finfo(b.dtype).tiny)
        alpha = torch.where(active, rr / curvature, 0.0)
        v = v + column(alpha, p) * p
        step = column(alpha, extra) * extra
        total = step if total is None else total + step
        r = r - column(alpha, r) * sp
        rr_next = dot(r, r)
        beta = torch.where(active, rr_next / rr.clamp(min=torch.finfo(b.dtype).tiny), 0.0)
        p = r + column(beta, p) * p
        rr = torch.where(active, rr_next, rr)

    if total is None:
        total = torch.zeros_like(product(p)[1])
    return v, total
