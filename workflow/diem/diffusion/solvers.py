"""Linear solvers for a batch of independent systems."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "SOLVERS",
    "column",
    "conjugate_gradient",
    "dot",
    "gmres",
    "most_iterations",
    "whitened_posterior",
]


STRONG = 2.2e-6
"""Observations of a larger signal-to-noise ratio, times the rounding, are solved by least squares,
which is slower."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner product of each sample, of shape ``(B,)``."""
    return (a * b).flatten(1).sum(dim=1)


def column(a: Tensor, like: Tensor) -> Tensor:
    """Returns one number a sample ``(B,)`` in a shape that broadcasts with ``(B, *)``."""
    return a.reshape(-1, *(1,) * (like.ndim - 1))


def most_iterations(b: Tensor, size: int) -> int:
    """Returns the most iterations of conjugate gradients that lead to a solution.

    In exact arithmetic the number of distinct eigenvalues is enough; rounding asks for some more.

    Arguments:
        b: The right-hand sides, of shape ``(B, *observation)``.
        size: The number of values of one ``x``.
    """
    return 4 * min(math.prod(b.shape[1:]), size) + 16


def conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    iterations: int,
    tolerance: float = 0.0,
    norm: float = 0.0,
    precondition: Callable[[Tensor], Tensor] = lambda r: r,
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
        norm: A sample also stops once its residual is at most this number.
        precondition: Returns about :math:`S^{-1} r`, linear in :math:`r`, symmetric and positive.

    Returns:
        The solutions, of shape ``(B, *)``, and their by-products.
    """
    tiny = torch.finfo(b.dtype).tiny
    v, r, total = torch.zeros_like(b), b, None
    p = z = precondition(r)
    rz, rr = dot(r, z), dot(r, r)
    floor = torch.clamp(rr * tolerance**2, min=max(norm**2, tiny))

    for _ in range(iterations):
        active = rr > floor
        if (tolerance > 0 or norm > 0) and not active.any():
            break
        sp, extra = product(p)
        curvature = dot(p, sp).abs()
        # A direction without curvature leads nowhere.
        active = active & (curvature > 0)
        curvature = curvature.clamp(min=tiny)
        alpha = torch.where(active, rz / curvature, 0.0)
        v = v + column(alpha, p) * p
        step = column(alpha, extra) * extra
        total = step if total is None else total + step
        r = r - column(alpha, r) * sp
        z = precondition(r)
        rz_next = dot(r, z)
        beta = torch.where(active, rz_next / rz.clamp(min=tiny), 0.0)
        p = z + column(beta, p) * p
        rz = torch.where(active, rz_next, rz)
        rr = torch.where(active, dot(r, r), rr)

    if total is None:
        total = torch.zeros_like(product(p)[1])
    return v, total


def gmres(
    product: Callable[[Tensor], tuple[Tensor, Tensor]], b: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    r"""Solves a batch of systems :math:`S_i v_i = b_i` by generalized minimal residuals from zero.

    Unlike :func:`conjugate_gradient` it asks nothing of :math:`S`: no iteration increases the
    residual, though :math:`S` be neither symmetric nor positive. It keeps all its directions, so
    that it suits few iterations. By-products are treated alike: the solution :math:`v = \sum_k
    \beta_k q_k` comes with the sum of theirs, and ``n`` iterations call ``product`` ``n`` times.

    References:
        | GMRES: A Generalized Minimal Residual Algorithm for Solving Nonsymmetric Linear Systems
          (Saad & Schultz, 1986)
        | https://doi.org/10.1137/0907058

    Arguments:
        product: Returns :math:`S q` and the by-product of ``q``.
        b: The right-hand sides, of shape ``(B, *)``.
        iterations: The number of iterations, 1 or more.

    Returns:
        The solutions, of shape ``(B, *)``, and their by-products.
    """
    epsilon, tiny = torch.finfo(b.dtype).eps, torch.finfo(b.dtype).tiny
    norm = dot(b, b).sqrt()
    q = [b / column(norm.clamp(min=tiny), b)]
    extras = []
    h = b.new_zeros(len(b), iterations + 1, iterations)
    for j in range(iterations):
        w, extra = product(q[j])
        extras.append(extra)
        before = dot(w, w).sqrt()
        for i, v in enumerate(q):
            h[:, i, j] = dot(v, w)
            w = w - column(h[:, i, j], v) * v
        after = dot(w, w).sqrt()
        # A direction that is all rounding leads nowhere: the solution is found.
        after = torch.where(after > 10 * epsilon * before, after, 0.0)
        h[:, j + 1, j] = after
        q.append(torch.where(column(after, w) > 0, w / column(after.clamp(min=tiny), w), 0.0))

    # Values that are not finite stay so through the directions; the pseudo-inverse refuses them.
    beta = torch.linalg.pinv(torch.nan_to_num(h))[..., 0] * norm[:, None]
    pairs = zip(beta.unbind(dim=1), q[:-1], extras, strict=True)
    solution, by_product = torch.zeros_like(b), torch.zeros_like(extras[0])
    for c, v, extra in pairs:
        solution = solution + column(c, v) * v
        by_product = by_product + column(c, extra) * extra
    return solution, by_product


def whitened_posterior(b: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Solves observations :math:`y = B z + n` of standard normals, with noise of variance one.

    Arguments:
        b: The matrices :math:`B`, of shape ``(N, m, size)``.
        y: The observations, of shape ``(N, m, 1)``.

    Returns:
        The mean of :math:`z` given :math:`y`, :math:`(I + B^\top B)^{-1} B^\top y`, of shape ``(N,
        size, 1)``, and :math:`I - (I + B^\top B)^{-1}`, by which its covariance is less than
        :math:`I`.
    """
    rows, size = b.shape[1:]
    if not (b.square().sum(dim=(1, 2)) * torch.finfo(b.dtype).eps < STRONG).all():
        # The least squares of y and of z = 0: products of B would square its errors.
        one = torch.eye(size, dtype=b.dtype, device=b.device).expand(len(b), size, size)
        q, r = torch.linalg.qr(torch.cat([b, one], dim=1))
        mean = torch.linalg.solve_triangular(r, q[:, :rows].mT @ y, upper=True)
        root = torch.linalg.solve_triangular(r, one, upper=True)
        return mean, one - root @ root.mT
    small = b @ b.mT if rows < size else b.mT @ b
    root = torch.linalg.cholesky(small + torch.eye(len(small[0]), dtype=b.dtype, device=b.device))
    if rows < size:
        solved = torch.cholesky_solve(torch.cat([y, b], dim=2), root)
        return b.mT @ solved[..., :1], b.mT @ solved[..., 1:]
    solved = torch.cholesky_solve(torch.cat([b.mT @ y, small], dim=2), root)
    return solved[..., :1], solved[..., 1:]


SOLVERS = {"cg": conjugate_gradient, "gmres": gmres}
"""The solvers of a posterior denoiser's linear system, by name."""
