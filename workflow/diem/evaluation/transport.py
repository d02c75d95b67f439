"""Optimal transport between sets of samples, cut short."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diem.evaluation.arrays import pair
from diem.jobs.resume import Keep, no_cache

__all__ = ["Transport", "truncated_transport"]

Array = np.ndarray | Tensor

DRIFT = 25.0
"""How far, as a logarithm, scalings may go from one before a kernel in single precision is made
again: so far, what it holds as zero stays without weight."""

PER_KERNEL = 64
"""The iterations with one kernel, at most, after which the potentials are kept: some minutes on one
core for sets of 16,384 samples."""


class Transport(NamedTuple):
    """What :func:`truncated_transport` returns.

    Attributes:
        cost: The cost of the plan, in squared units of the data.
        iterations: The number of iterations.
        violation: How wrong the plan's marginal is: the root mean square, over the second samples,
            of the relative error of their masses.
    """

    cost: float
    iterations: int
    violation: float


def truncated_transport(
    a: Array,
    b: Array,
    regularization: float = 1e-3,
    tolerance: float = 0.128,
    iterations: int = 1024,
    chunk: int = 2**22,
    keep: Keep = no_cache,
) -> Transport:
    r"""Moves one set of samples to another by a limited number of Sinkhorn iterations from zero.

    The cost is :math:`\sum_{ij} P_{ij} \| a_i - b_j \|_2^2`, without the entropy, for the plan
    after the last iteration. Where :math:`\lambda` is small against the distances, that plan is
    far from the optimum: the masses of :math:`b` are not met, and the cost of meeting them is left
    out. It is what the paper's comparison of heuristics shows. The converged divergence is
    :func:`sinkhorn_divergence`.

    Exponents are handled in the logarithmic domain: between two evaluations of the kernel

    .. math:: K_{ij} = \exp \left( \frac{f_i + g_j - \| a_i - b_j \|_2^2}{\lambda} \right)

    which are made chunk by chunk, an iteration is two products with it, and at most
    :data:`PER_KERNEL` iterations are made with one kernel. The kernel, in single precision, is all
    of the memory that grows with :math:`N M`: 1 GiB for sets of 16,384. The computation is on the
    device of the first samples, if they are a tensor.

    References:
        | Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems
          (Schmitzer, 2019)
        | https://arxiv.org/abs/1610.06519

    Arguments:
        a: The first samples, with shape :math:`(N, *event)`.
        b: The second samples, with shape :math:`(M, *event)`.
        regularization: The strength :math:`\lambda` of the regularization, in squared units of the
            data.
        tolerance: The violation at which the iterations end. The default is a Euclidean norm of
            1e-3 for 16,384 masses of 1 / 16,384.
        iterations: The largest number of iterations.
        chunk: The number of pairs held in memory in double precision.
        keep: Makes the potentials after each kernel that were not kept, see
            :mod:`diem.jobs.resume`.

    Raises:
        ValueError: If the events' shapes differ.
        DiemError: If a value is not finite.
    """
    scaling = _Scaling(*pair(a, b), regularization, chunk)
    state, kernels = keep("first", scaling.first), 0
    while True:
        f, g = (torch.from_numpy(state[name]).to(scaling.a) for name in ("f", "g"))
        if state.get("ended", False):
            break
        kernels += 1
        further = partial(scaling.further, f, g, int(state["done"]), tolerance, iterations)
        state = keep(f"kernel/{kernels}", further)
    return Transport(scaling.cost(f, g), int(state["done"]), float(state["violation"]))


class _Scaling:
    """Sinkhorn iterations on potentials, which are those over the regularization.

    Arguments:
        a: The first samples, with shape :math:`(N, F)`.
        b: The second samples, with shape :math:`(M, F)`.
        regularization: The strength of the regularization.
        chunk: The number of pairs held in memory in double precision.
    """

    def __init__(self, a: Tensor, b: Tensor, regularization: float, chunk: int) -> None:
        self.a, self.b, self.regularization = a, b, regularization
        self.squared_a, self.squared_b = (x.square().sum(dim=1) / regularization for x in (a, b))
        self.blocks = torch.arange(len(a), device=a.device).split(max(chunk // len(b), 1))

    def exponents(self, rows: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Returns the logarithms of some rows of the plan, over its uniform weights."""
        # One product of matrices adds up all terms, in double precision for they are large.
        left = torch.stack([torch.ones_like(f[rows]), f[rows] - self.squared_a[rows]], dim=1)
        right = torch.stack([g - self.squared_b, torch.ones_like(g)])
        return torch.addmm(left @ right, self.a[rows], self.b.T, alpha=2 / self.regularization)

    def first(self) -> dict[str, np.ndarray]:
        """Makes the first iteration, which moves the potentials by more than a kernel can hold."""
        f, g = torch.zeros_like(self.squared_a), torch.zeros_like(self.squared_b)
        column = torch.full_like(g, -math.inf)
        for rows in self.blocks:
            column = torch.logaddexp(column, self.exponents(rows, f, g).logsumexp(dim=0))
        g = math.log(len(f)) - column
        sums = [self.exponents(rows, f, g).logsumexp(dim=1) for rows in self.blocks]
        f = torch.cat([math.log(len(g)) - row for row in sums])
        return {"f": f.cpu().numpy(), "g": g.cpu().numpy(), "done": np.array(1)}

    def further(
        self, f: Tensor, g: Tensor, done: int, tolerance: float, iterations: int
    ) -> dict[str, np.ndarray]:
        """Makes the iterations with one kernel."""
        n, m = len(f), len(g)
        kernel = torch.empty(n, m, dtype=torch.float32, device=self.a.device)
        tiny = torch.finfo(kernel.dtype).tiny
        for rows in self.blocks:
            # Subnormal numbers are slow, and of no weight.
            kernel[rows] = F.threshold(self.exponents(rows, f, g).float().exp_(), tiny, 0.0)
        u, v = f.new_ones(n).float(), f.new_ones(m).float()
        began, drift, ended = done, 0.0, False
        while drift < DRIFT and done < began + PER_KERNEL:
            column = (u @ kernel) / n
            violation = float((v * column - 1).square().mean().sqrt())
            ended = violation <= tolerance or done >= iterations
            if ended:
                break
            v = 1 / column
            u = m / (kernel @ v)
            done += 1
            drift = float(torch.cat([u, v]).log().abs().max())
        f, g = f + u.double().log(), g + v.double().log()
        numbers = {"done": done, "violation": violation, "ended": ended}
        arrays = {name: np.array(value) for name, value in numbers.items()}
        return {"f": f.cpu().numpy(), "g": g.cpu().numpy(), **arrays}

    def cost(self, f: Tensor, g: Tensor) -> float:
        """Returns the cost of the plan, without the entropy."""
        cost = 0.0
        for rows in self.blocks:
            exponent = self.exponents(rows, f, g)
            cost += float((exponent.exp() * (f[rows, None] + g - exponent)).sum())
        return self.regularization * cost / (len(f) * len(g))
