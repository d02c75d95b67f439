"""Numbers that compare arrays of samples, with shape :math:`(N, *event)`.

NumPy arrays and tensors are both welcome; the arithmetic is in double precision. Where samples may
be more than fit in memory, so are :class:`diem.files.hdf5.HasRows`, which are gone through part by
part. Shapes that do not fit are a defect of the caller and raise :py:`ValueError`. Data that do not
serve a metric raise :py:`DiemError`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from diem.errors import DiemError
from diem.files.hdf5 import HasRows, Rows, row_parts
from diem.files.tensors import load_tensors, save_tensors
from diem.jobs.resume import Keep, no_cache
from diem.seeds import Stage, rng, torch_generator

__all__ = [
    "Extractor",
    "Moments",
    "Transport",
    "crps",
    "distance_to_manifold",
    "feature_moments",
    "frechet_distance",
    "frechet_distance_of_moments",
    "intensities",
    "load_extractor",
    "nmse",
    "psnr",
    "residual",
    "residual_summary",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "ssim",
    "train_extractor",
    "truncated_transport",
]

Array = np.ndarray | Tensor

DRIFT = 25.0
"""How far, as a logarithm, scalings may go from one before a kernel in single precision is made
anew: so far, what it holds as zero stays without weight."""

PER_KERNEL = 64
"""The iterations with one kernel, at most, after which the potentials are kept: some minutes on one
core for sets of 16,384 samples."""

STEPS_KEPT = 50
"""After so many steps the state of an extractor's training is kept: 7 s at CIFAR-10's size."""

PROJECTED = 2**23
"""The projections that are held in memory at a time, or those on one direction."""

SORTED = 2**20
"""The projections that are sorted at a time, or those on one direction."""


# Distances between sets of samples


def sliced_wasserstein(a: HasRows, b: HasRows, projections: int = 128, seed: int = 0) -> float:
    r"""Returns the sliced 2-Wasserstein distance between two sets of samples.

    .. math:: \left( \frac{1}{P} \sum_{p=1}^P W_2^2(\theta_p^\top a, \theta_p^\top b) \right)^{1/2}

    with directions :math:`\theta_p` drawn uniformly from the unit sphere. It has the unit of the
    data. The same seed and event give the same directions, so that the distances of several models
    can be compared. Samples are read once for every :data:`PROJECTED` projections.

    References:
        | Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015)
        | https://hal.science/hal-00881872

    Arguments:
        a: The first samples, with shape :math:`(N, *event)`.
        b: The second samples, with shape :math:`(M, *event)`.
        projections: The number of directions :math:`P`.
        seed: The seed of the directions.

    Raises:
        ValueError: If the events' shapes differ.
        DiemError: If a value is not finite.
    """
    import ot  # takes seconds, and most commands do without

    _check_pair(a, b)
    theta = rng(seed, Stage.METRIC).standard_normal((math.prod(a[:1].shape[1:]), projections))
    theta /= np.linalg.norm(theta, axis=0)
    count = len(a) + len(b)
    most, few = (max(1, held // count) for held in (PROJECTED, SORTED))
    squared = 0.0
    for some in torch.from_numpy(theta).split(most, dim=1):
        u, v = (torch.cat([_projected(part, some) for part in row_parts(x)]) for x in (a, b))
        for pair in zip(u.split(few, dim=1), v.split(few, dim=1), strict=True):
            squared += float(ot.wasserstein_1d(*pair, p=2).sum())
    return math.sqrt(squared / projections)


def _projected(x: Array, theta: Tensor) -> Tensor:
    x = _vectors(x)
    return (x @ theta.to(x.device)).cpu()


def sinkhorn_divergence(
    a: Array,
    b: Array,
    regularization: float = 1e-3,
    tolerance: float = 1e-2,
    iterations: int = 1024,
) -> float:
    r"""Returns the Sinkhorn divergence between two sets of samples of equal weights.

    .. math:: S_\lambda(a, b) = W_\lambda(a, b) - \frac{W_\lambda(a, a) + W_\lambda(b, b)}{2}

    where, with :math:`\mu` and :math:`\nu` the uniform weights of :math:`a` and :math:`b`,

    .. math::
        W_\lambda(a, b) = \min_{P \in \Pi(\mu, \nu)} \sum_{ij} P_{ij} \| a_i - b_j \|_2^2
            + \lambda \, \mathrm{KL}(P \, \| \, \mu \otimes \nu)

    It has the squared unit of the data. It is zero for equal sets and never negative; two sets that
    are *drawn* from one distribution have a positive divergence, which falls slowly with their
    sizes: compare divergences of the same sizes only, and show that of two clean sets beside them.

    :math:`W_\lambda` is the dual objective once the marginals of :math:`P` are within `tolerance`.
    At the default, on samples of the manifold, of the digits and of Gaussians, it was then within
    0.1 % of the value after ten times more iterations.

    The iterations start from the potentials of the unregularized problem. At the default
    :math:`\lambda`, tens of iterations suffice from there and thousands do not from zero. Memory
    grows with :math:`N M`, time a little faster.

    References:
        | Interpolating between Optimal Transport and MMD using Sinkhorn Divergences
          (Feydy et al., 2019)
        | https://arxiv.org/abs/1810.08278

    Arguments:
        a: The first samples, with shape :math:`(N, *event)`.
        b: The second samples, with shape :math:`(M, *event)`.
        regularization: The strength :math:`\lambda` of the regularization, in squared units of the
            data.
        tolerance: The mass, between 0 and 2, by which the marginals of a plan may be wrong.
        iterations: The largest number of Sinkhorn iterations for each of the three terms.

    Raises:
        ValueError: If the events' shapes differ.
        DiemError: If a value is not finite, or the iterations do not reach the tolerance.
    """
    a, b = (x.cpu().numpy() for x in _pair(a, b))
    ab, aa, bb = (
        _entropic_cost(x, y, regularization, tolerance, iterations)
        for x, y in ((a, b), (a, a), (b, b))
    )
    # Each term is known up to the tolerance, the sign of the divergence is known exactly.
    return max(ab - (aa + bb) / 2, 0.0)


def _entropic_cost(
    x: np.ndarray, y: np.ndarray, regularization: float, tolerance: float, iterations: int
) -> float:
    """Returns the regularized cost W of :func:`sinkhorn_divergence`."""
    import ot  # takes seconds, and most commands do without

    n, m = len(x), len(y)
    mu, nu = np.full(n, 1 / n), np.full(m, 1 / m)
    cost = ot.dist(x, y)

    # The potentials of the unregularized problem keep every exponent at or below zero, with one
    # zero at least in every row and column, so that no sum underflows. Between a set and itself
    # they are zero.
    if x is y:
        start = (np.zeros(n), np.zeros(m))
    else:
        _, log = ot.emd(mu, nu, cost, numItermax=10**9, log=True)
        if log["warning"] is not None:
            raise DiemError(f"The exact transport between the samples failed: {log['warning']}")
        start = (log["u"], log["v"])

    # From this start the scalings stay moderate, and POT need not move them into the potentials
    # where they exceed `tau`: right after it does so, its plan is wrong by a factor (0.9.7).
    plan, log = ot.bregman.sinkhorn_stabilized(
        mu,
        nu,
        cost,
        regularization,
        numItermax=iterations,
        stopThr=tolerance / math.sqrt(m),  # a Euclidean norm, the tolerance is on the sum
        tau=math.inf,
        warmstart=start,
        warn=False,
        log=True,
    )
    violation = np.abs(plan.sum(axis=0) - nu).sum()
    if not violation <= tolerance:
        raise DiemError(
            f"The Sinkhorn divergence did not converge: after {iterations} iterations the marginal "
            f"is wrong by {violation:.1e} instead of {tolerance:.1e}; raise the number of "
            f"iterations or the regularization of {regularization:g}."
        )
    # The rows' marginals are exact after an iteration, hence this is the dual objective. POT's
    # potentials hold the logarithms of the weights, which belong to the reference of KL.
    return float(mu @ log["alpha"] + nu @ log["beta"] + regularization * math.log(n * m))


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
        keep: Makes the potentials after each kernel that were not kept, see :mod:`diem.jobs.resume`.

    Raises:
        ValueError: If the events' shapes differ.
        DiemError: If a value is not finite.
    """
    a, b = _pair(a, b)
    n, m = len(a), len(b)
    squared_a, squared_b = (x.square().sum(dim=1) / regularization for x in (a, b))
    blocks = torch.arange(n, device=a.device).split(max(chunk // m, 1))

    # The potentials f and g are those over the regularization.
    def exponents(rows: Tensor, f: Tensor, g: Tensor) -> Tensor:
        # One product of matrices adds up all terms, in double precision for they are large.
        left = torch.stack([torch.ones_like(f[rows]), f[rows] - squared_a[rows]], dim=1)
        right = torch.stack([g - squared_b, torch.ones_like(g)])
        return torch.addmm(left @ right, a[rows], b.T, alpha=2 / regularization)

    def first() -> dict[str, np.ndarray]:
        """Makes the first iteration, which moves the potentials by more than a kernel can hold."""
        f, g = torch.zeros_like(squared_a), torch.zeros_like(squared_b)
        column = torch.full_like(g, -math.inf)
        for rows in blocks:
            column = torch.logaddexp(column, exponents(rows, f, g).logsumexp(dim=0))
        g = math.log(n) - column
        f = torch.cat([math.log(m) - exponents(rows, f, g).logsumexp(dim=1) for rows in blocks])
        return {"f": f.cpu().numpy(), "g": g.cpu().numpy(), "done": np.array(1)}

    def further(f: Tensor, g: Tensor, done: int) -> dict[str, np.ndarray]:
        """Makes the iterations with one kernel."""
        kernel = torch.empty(n, m, dtype=torch.float32, device=a.device)
        tiny = torch.finfo(kernel.dtype).tiny
        for rows in blocks:
            # Subnormal numbers are slow, and of no weight.
            kernel[rows] = F.threshold(exponents(rows, f, g).float().exp_(), tiny, 0.0)
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
        numbers = {name: np.array(value) for name, value in numbers.items()}
        return {"f": f.cpu().numpy(), "g": g.cpu().numpy(), **numbers}

    state, kernels = keep("first", first), 0
    while True:
        f, g = (torch.from_numpy(state[name]).to(a) for name in ("f", "g"))
        if state.get("ended", False):
            break
        kernels += 1
        state = keep(f"kernel/{kernels}", partial(further, f, g, int(state["done"])))

    cost = 0.0
    for rows in blocks:
        exponent = exponents(rows, f, g)
        cost += float((exponent.exp() * (f[rows, None] + g - exponent)).sum())
    return Transport(regularization * cost / (n * m), int(state["done"]), float(state["violation"]))


def frechet_distance(a: Array, b: Array) -> float:
    r"""Returns the Fréchet distance between Gaussian fits of two sets of features.

    .. math::
        \| \mu_a - \mu_b \|_2^2
            + \mathrm{tr} \left( \Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2} \right)

    It is a squared 2-Wasserstein distance, has the squared unit of the features and is biased
    upwards for few samples. It means nothing without the name and digest of the extractor of the
    features.

    References:
        | The Fréchet Distance between Multivariate Normal Distributions (Dowson & Landau, 1982)
        | https://doi.org/10.1016/0047-259X(82)90077-X

    Arguments:
        a: The first features, with shape :math:`(N, F)`.
        b: The second features, with shape :math:`(M, F)`.

    Raises:
        ValueError: If the features are not vectors or their numbers differ.
        DiemError: If a set has no more samples than features, or a value is not finite.
    """
    _check_pair(a, b)
    return frechet_distance_of_moments(*(feature_moments(x, full=True) for x in (a, b)))


class Moments(NamedTuple):
    r"""A Gaussian fit of features.

    Attributes:
        mean: The mean, float64, with shape :math:`(F,)`.
        root: A factor :math:`R` of the covariance :math:`R^\top R`, float64, with shape
            :math:`(K, F)`.
    """

    mean: Tensor
    root: Tensor


def feature_moments(x: Array | Iterable[Array], full: bool = False) -> Moments:
    """Returns the Gaussian fit of features, with shape :math:`(N, F)`, or of their parts.

    No more than :math:`F` features and one part are held in memory, in double precision.

    Arguments:
        x: The features, or consecutive parts of them.
        full: Whether there must be more samples than features.

    Raises:
        ValueError: If the features are not vectors.
        DiemError: If there are fewer than two samples, or too few, or a value is not finite.
    """
    count, mean, scatter = 0, 0.0, 0.0
    waiting: list[Tensor] = []
    for part in [x] if isinstance(x, Array) else x:
        if part.ndim != 2:
            raise ValueError(f"Features have shape (N, F), got {tuple(part.shape)}.")
        waiting.append(_vectors(part))
        # Parts are taken together until they are worth a product of matrices.
        if sum(map(len, waiting)) > part.shape[1]:
            count, mean, scatter = _merged(count, mean, scatter, torch.cat(waiting))
            waiting = []
    rest = torch.cat(waiting) if waiting else torch.empty(0, 0)
    if count == 0 and full:
        raise DiemError(
            f"The Fréchet distance on {rest.shape[1]} features needs more than {rest.shape[1]}"
            f" samples, got {len(rest)}."
        )
    if count + len(rest) < 2:
        raise DiemError("A Gaussian fit of features needs two samples or more.")
    if count == 0:
        mean = rest.mean(dim=0)
        return Moments(mean, (rest - mean) / math.sqrt(len(rest) - 1))
    if len(rest) > 0:
        count, mean, scatter = _merged(count, mean, scatter, rest)
    eigenvalues, q = torch.linalg.eigh(scatter / (count - 1))
    return Moments(mean, eigenvalues.clamp(min=0).sqrt()[:, None] * q.T)


def _merged(
    count: int, mean: Tensor | float, scatter: Tensor | float, x: Tensor
) -> tuple[int, Tensor, Tensor]:
    """Adds samples to a number of them, their mean, and their scatter about it.

    References:
        | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
          (Chan et al., 1979)
        | https://doi.org/10.1007/978-3-642-51461-6_3
    """
    total, centre = count + len(x), x.mean(dim=0)
    centred, shift = x - centre, centre - mean
    scatter = scatter + centred.T @ centred + torch.outer(shift, shift) * (count * len(x) / total)
    return total, mean + shift * (len(x) / total), scatter


def frechet_distance_of_moments(a: Moments, b: Moments) -> float:
    """Returns the :func:`frechet_distance` between two Gaussians."""
    # The trace of (A B)^1/2 is the sum of the singular values of the product of any two factors,
    # which loses no digits to the small eigenvalues.
    cross = torch.linalg.svdvals(a.root @ b.root.T).sum()
    spread = a.root.square().sum() + b.root.square().sum() - 2 * cross
    return max(float((a.mean - b.mean).square().sum() + spread), 0.0)


# Distances of each sample


def psnr(x: Array, reference: Array, data_range: float = 4.0) -> Tensor:
    r"""Returns each sample's peak signal-to-noise ratio, in dB.

    .. math:: 10 \log_{10} \frac{r^2}{\mathrm{mean}((x - x_\text{ref})^2)}

    The range :math:`r` is that of the data's scale, not that of the sample. It is infinite for a
    sample that equals its reference.

    Arguments:
        x: The samples, with shape :math:`(N, *event)`.
        reference: The true values, with the same shape.
        data_range: The range :math:`r`, that of [-2, 2] by default.

    Returns:
        The ratios, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes differ.
    """
    x, reference = _aligned(x, reference)
    mse = (x - reference).square().flatten(start_dim=1).mean(dim=1)
    return 10 * torch.log10(data_range**2 / mse)


def _aligned(x: Array, reference: Array) -> tuple[Tensor, Tensor]:
    """Returns samples and their references in double precision, if they have one shape."""
    x, reference = _double(x), _double(reference)
    if x.shape != reference.shape:
        raise ValueError(
            f"Samples and references have shapes {tuple(x.shape)} and {tuple(reference.shape)}."
        )
    return x, reference


def ssim(x: Array, reference: Array, data_range: float = 4.0) -> Tensor:
    r"""Returns each image's structural similarity, from -1 to 1.

    It is scikit-image's, with the windows of the reference: Gaussians of a standard deviation of
    1.5 pixels, 11 pixels wide. The mean is over the windows that lie within the image, and over
    the channels.

    References:
        | Image Quality Assessment: From Error Visibility to Structural Similarity
          (Wang et al., 2004)
        | https://doi.org/10.1109/TIP.2003.819861

    Arguments:
        x: The images, with shape :math:`(N, C, H, W)`, of 11 pixels or more in height and width.
        reference: The true images, with the same shape.
        data_range: The range of the data's scale, that of [-2, 2] by default.

    Returns:
        The similarities, with shape :math:`(N,)`; not a number for an image that is not finite.

    Raises:
        ValueError: If the shapes differ.
        DiemError: If the images are smaller than a window.
    """
    from skimage.metrics import structural_similarity  # most commands do without

    x, reference = (v.cpu().numpy() for v in _aligned(x, reference))
    if min(x.shape[2:]) < 11:
        raise DiemError(
            f"metrics: 'ssim' needs images of 11 x 11 pixels or more, and these have {x.shape[2:]}."
        )
    values = [
        structural_similarity(
            *pair,
            data_range=data_range,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in zip(x, reference, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def nmse(x: Array, reference: Array) -> Tensor:
    r"""Returns each sample's normalized mean squared error.

    .. math:: \frac{\| x - x_\text{ref} \|^2}{\| x_\text{ref} \|^2}

    It depends on where zero is: images are compared by their :func:`intensities`.

    Arguments:
        x: The samples, with shape :math:`(N, *event)`.
        reference: The true values, with the same shape.

    Returns:
        The errors, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes differ.
    """
    x, reference = _aligned(x, reference)
    error, power = (v.square().flatten(start_dim=1).sum(dim=1) for v in (x - reference, reference))
    return error / power


def intensities(x: Array) -> Tensor:
    """Returns images as intensities, of which black is 0 and white is 1.

    Arguments:
        x: The images in [-2, 2], with shape :math:`(N, C, H, W)`. Two channels are the real and
            imaginary parts of a complex image, whose magnitude counts.

    Returns:
        The intensities, with shape :math:`(N, C, H, W)`, or :math:`(N, 1, H, W)` if complex.
    """
    x = _double(x)
    if x.shape[1] == 2:
        return torch.linalg.vector_norm(x, dim=1, keepdim=True) / 2
    return (x + 2) / 4


def distance_to_manifold(x: Array, curve: Array, chunk: int = 2**22) -> Tensor:
    r"""Returns each sample's Euclidean distance to a curve, in the unit of the data.

    The curve is the polyline through its points, open at its ends. The distance is to its segments,
    not to its points, and exact but for rounding, at most about 1e-7 at the scale of the data.

    Arguments:
        x: The samples, with shape :math:`(N, D)`.
        curve: The points of the curve in their order, with shape :math:`(P, D)`.
        chunk: The number of pairs of a sample and a segment held in memory at once.

    Returns:
        The distances, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    x, curve = _double(x), _double(curve)
    if x.ndim != 2 or curve.ndim != 2 or x.shape[1] != curve.shape[1] or len(curve) < 2:
        raise ValueError(
            f"Samples (N, D) and a curve (P >= 2, D) are needed, got {tuple(x.shape)} and "
            f"{tuple(curve.shape)}."
        )
    start, step = curve[:-1], curve.diff(dim=0)
    # Repeated points are segments of length zero.
    length = step.square().sum(dim=1).clamp(min=torch.finfo(step.dtype).tiny)

    distances = []
    for rows in x.split(max(chunk // len(start), 1)):
        # With w = x - start, the squared distance to w's foot t * step is
        # |w|^2 - 2 t <w, step> + t^2 |step|^2; products of matrices give all pairs.
        along = rows @ step.T - (start * step).sum(dim=1)
        t = (along / length).clamp(0, 1)
        squared = start.square().sum(dim=1) - 2 * rows @ start.T + t * (t * length - 2 * along)
        nearest = squared.argmin(dim=1)
        # The expanded square is too coarse near zero for anything but finding the segment.
        t = t.gather(1, nearest[:, None])
        foot = start[nearest] + t * step[nearest]
        distances.append(torch.linalg.vector_norm(rows - foot, dim=1))
    return torch.cat(distances)


def residual(y: Array, y_hat: Array, sigma_y: float | Array) -> Tensor:
    r"""Returns the standardized residuals :math:`(y - \hat{y}) / \sigma_y`.

    If :math:`\hat{y} = A x` for the true :math:`x`, they are standard normal.

    Arguments:
        y: The observations, with shape :math:`(N, *event)`.
        y_hat: What the samples predict, :math:`A x`, with the same shape.
        sigma_y: The standard deviation of the noise, in the unit of the observations, a number or
            an array that broadcasts to the observations.

    Returns:
        The residuals, with shape :math:`(N, *event)`.

    Raises:
        ValueError: If the shapes differ.
    """
    y, y_hat = _double(y), _double(y_hat)
    if y.shape != y_hat.shape:
        raise ValueError(
            f"Observations and predictions have shapes {tuple(y.shape)} and {tuple(y_hat.shape)}."
        )
    return (y - y_hat) / torch.as_tensor(sigma_y, dtype=y.dtype, device=y.device)


def residual_summary(residuals: Array, observed: Array | None = None) -> dict[str, float]:
    r"""Summarizes standardized residuals, in units of :math:`\sigma_y`.

    Arguments:
        residuals: The residuals, with shape :math:`(N, *event)`, see :func:`residual`.
        observed: Which values were observed, booleans that broadcast to the residuals, for example
            a mask shared by the channels, with shape :math:`(N, 1, H, W)`. All, if :py:`None`.

    Returns:
        The `median` and root mean square (`rms`) of the magnitudes, and the fraction of them that
        is greater than 3 (`beyond_3`). For standard normal residuals: 0.674, 1 and 0.0027.

    Raises:
        DiemError: If no value was observed.
    """
    residuals = _double(residuals)
    if observed is not None:
        observed = torch.as_tensor(observed, dtype=torch.bool, device=residuals.device)
        residuals = residuals[observed.expand_as(residuals)]
    magnitude = residuals.abs().cpu().numpy()
    if magnitude.size == 0:
        raise DiemError("There are no residuals to summarize: no value was observed.")
    return {
        "median": float(np.median(magnitude)),
        "rms": float(np.sqrt(np.mean(magnitude**2))),
        "beyond_3": float(np.mean(magnitude > 3)),
    }


def crps(draws: Array, y: Array, kept: Array) -> Tensor:
    r"""Returns the continuous ranked probability score of predictions, averaged over values.

    .. math:: \frac{1}{K} \sum_k |s_k - y| - \frac{1}{2 K (K - 1)} \sum_{k, l} |s_k - s_l|

    It has the unit of :math:`y`. No other distribution than that of :math:`y` has a lower
    expectation, whatever the number of draws, so that it compares models by their predictions of
    values that they have not seen.

    References:
        | Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437

    Arguments:
        draws: Draws of the predictive distribution, with shape :math:`(N, K, *event)` and at least
            two of each.
        y: The values, with shape :math:`(N, *event)`.
        kept: Which values count, booleans of the same shape.

    Returns:
        The scores, with shape :math:`(N,)`; NaN where no value counts.
    """
    draws, y = _double(draws), _double(y)
    kept = torch.as_tensor(kept, dtype=torch.bool, device=y.device).flatten(1)
    count = draws.shape[1]
    draws, y = draws.flatten(2), y.flatten(1)
    miss = (draws - y[:, None]).abs().mean(dim=1)
    # Of sorted draws, the sum over pairs is one over ranks.
    rank = 2.0 * torch.arange(count, dtype=y.dtype, device=y.device) - count + 1
    spread = (draws.sort(dim=1).values * rank[:, None]).sum(dim=1) / (count * (count - 1))
    return torch.where(kept, miss - spread, 0.0).sum(dim=1) / kept.sum(dim=1)


# The extractor of features for images


class Extractor(nn.Module):
    """A small convolutional classifier, whose penultimate layer are the features of images.

    It is made for small images, and is not the Inception network: distances on its features are
    not FIDs.

    Arguments:
        shape: The shape :math:`(C, H, W)` of the images, at least 2x2 pixels.
        classes: The number of classes.
        validation_accuracy: The fraction of held-out images whose class it recognizes, if known.
    """

    name = "cnn32"
    width = 16
    dimension = 32  # the number of features

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        validation_accuracy: float | None = None,
    ):
        super().__init__()
        self.shape = tuple(shape)
        self.classes = classes
        self.validation_accuracy = validation_accuracy
        width = self.width
        self.body = nn.Sequential(
            nn.Conv2d(self.shape[0], width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, self.dimension),
            nn.SiLU(),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(self.dimension, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits, with shape (N, classes), of images with shape (N, C, H, W)."""
        return self.head(self.dropout(self.body(x)))

    @torch.no_grad()
    def features(self, x: Array) -> Tensor:
        """Returns the features of images.

        Arguments:
            x: The images in [-2, 2], with shape :math:`(N, C, H, W)`. Values beyond are not
                clipped.

        Returns:
            The features, without unit, with shape :math:`(N, 32)`.

        Raises:
            ValueError: If the images do not have the extractor's shape.
        """
        x = torch.as_tensor(x, dtype=torch.float32, device=self.head.weight.device)
        if x.shape[1:] != self.shape:
            raise ValueError(f"The extractor is for {self.shape}, got {tuple(x.shape[1:])}.")
        return torch.cat([self.body(part) for part in x.split(1024)])

    @torch.no_grad()
    def accuracy(self, x: Array | Rows, label: Array) -> float:
        """Returns the fraction of images, with shape (N, C, H, W), whose class is recognized.

        Arguments:
            x: The images in [-2, 2], with shape :math:`(N, C, H, W)`, or on the disk.
            label: Their classes, with shape :math:`(N,)`.
        """
        right = 0
        for start in range(0, len(x), 1024):
            rows = slice(start, start + 1024)
            predicted = self.head(self.features(x[rows])).argmax(dim=1)
            right += int((predicted == torch.as_tensor(label[rows], device=predicted.device)).sum())
        return right / len(x)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that identify the weights, for the metric's card."""
        sha = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            sha.update(name.encode())
            sha.update(value.cpu().numpy().tobytes())
        return sha.hexdigest()[:16]

    def save(self, path: str | Path):
        """Writes the extractor as safetensors with JSON metadata.

        Arguments:
            path: The file, which appears only once it is complete.

        Raises:
            DiemError: If the file cannot be written.
        """
        card = {
            "name": self.name,
            "shape": self.shape,
            "classes": self.classes,
            "validation_accuracy": self.validation_accuracy,
        }
        save_tensors(path, self.state_dict(), {"extractor": json.dumps(card)})


def load_extractor(path: str | Path) -> Extractor:
    """Reads an extractor that :func:`Extractor.save` wrote.

    Raises:
        DiemError: If the file cannot be read, or is not an extractor.
    """
    weights, header = load_tensors(path)
    try:
        card = json.loads(header["extractor"])
        if card.pop("name") != Extractor.name:
            raise ValueError("it has another name")
        extractor = Extractor(**card)
        extractor.load_state_dict(weights)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DiemError(f"{path}: this is no {Extractor.name!r} extractor ({reason}).") from error
    return extractor.eval().requires_grad_(False)


def train_extractor(
    x: Array | Rows,
    label: Array,
    x_validation: Array | Rows,
    label_validation: Array,
    seed: int,
    steps: int = 400,
    keep: Keep = no_cache,
) -> Extractor:
    """Trains an extractor as a classifier of clean, labelled images, on the CPU.

    Arguments:
        x: The images in [-2, 2], with shape :math:`(N, C, H, W)`, or on the disk.
        label: Their classes, integers from 0, with shape :math:`(N,)`.
        x_validation: Images that it is not trained on, with shape :math:`(M, C, H, W)`, or on the
            disk.
        label_validation: Their classes, with shape :math:`(M,)`.
        seed: The configuration's seed. On one kind of machine, the weights follow from it, the
            images and the number of steps alone. The global random state is left as it was.
        steps: The number of optimizer steps, each on 128 images.
        keep: Makes the states after some steps that were not kept, see :mod:`diem.jobs.resume`.

    Returns:
        The extractor, in evaluation mode, with its accuracy on the validation images.
    """
    label = torch.as_tensor(label, dtype=torch.int64)
    rates = _one_cycle(steps)

    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(torch_generator(seed, Stage.EXTRACTOR).initial_seed())
        extractor = Extractor(shape=tuple(x.shape[-3:]), classes=int(label.max()) + 1)
        optimizer = torch.optim.AdamW(extractor.parameters(), weight_decay=1e-2)

        def trained(some: range) -> dict[str, np.ndarray]:
            for step in some:
                optimizer.param_groups[0].update(rates[step])
                batch = torch.randint(len(x), size=(128,))
                images = torch.as_tensor(x[batch.numpy()], dtype=torch.float32)
                # Without smoothing the features grow with training, and distances with them.
                loss = F.cross_entropy(extractor(images), label[batch], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return _training_state(extractor, optimizer)

        for start in range(0, steps, STEPS_KEPT):
            some = range(start, min(start + STEPS_KEPT, steps))
            state = keep(f"step/{some.stop}", partial(trained, some))
            _restore_training(extractor, optimizer, state)

    extractor.eval().requires_grad_(False)
    extractor.validation_accuracy = extractor.accuracy(x_validation, label_validation)
    return extractor


def _one_cycle(steps: int) -> list[dict[str, Any]]:
    """Returns the learning rate and the momenta of each step."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(()))])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append({key: optimizer.param_groups[0][key] for key in ("lr", "betas")})
        optimizer.step()
        scheduler.step()
    return rates


def _training_state(extractor: Extractor, optimizer: torch.optim.AdamW) -> dict[str, np.ndarray]:
    """Returns copies of all that training changes."""
    tensors = {"random": torch.get_rng_state()}
    for name, weight in extractor.named_parameters():
        values = {"weight": weight.detach(), **optimizer.state[weight]}
        tensors |= {f"{key}.{name}": value for key, value in values.items()}
    return {name: value.numpy().copy() for name, value in tensors.items()}


@torch.no_grad()
def _restore_training(
    extractor: Extractor, optimizer: torch.optim.AdamW, state: Mapping[str, np.ndarray]
) -> None:
    """Puts training back to a state of :func:`_training_state`."""
    torch.set_rng_state(torch.from_numpy(state["random"]))
    for name, weight in extractor.named_parameters():
        weight.copy_(torch.from_numpy(state[f"weight.{name}"]))
        optimizer.state[weight] = {
            key: torch.from_numpy(state[f"{key}.{name}"]).clone()
            for key in ("step", "exp_avg", "exp_avg_sq")
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order whatever the number of cores, which is also fast for a small network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Inputs


def _double(x: Array) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def _check_pair(a: HasRows, b: HasRows) -> None:
    """Raises unless two sets of samples (N, *event) have the same event."""
    shapes = [(len(x), *x[:1].shape[1:]) for x in (a, b)]
    if shapes[0][1:] != shapes[1][1:] or len(shapes[0]) < 2 or 0 in (len(a), len(b)):
        raise ValueError(
            f"Two sets (N, *event) of the same event are needed, got {shapes[0]} and {shapes[1]}."
        )


def _vectors(x: Array) -> Tensor:
    """Returns samples as the finite rows of a matrix, with shape (N, F)."""
    x = _double(x).flatten(start_dim=1)
    if not torch.isfinite(x).all():
        raise DiemError("The samples hold values that are not finite, no metric compares them.")
    return x


def _pair(a: Array, b: Array) -> tuple[Tensor, Tensor]:
    """Returns two sets of samples as finite matrices, with shapes (N, F) and (M, F)."""
    _check_pair(a, b)
    a = _vectors(a)
    return a, _vectors(b).to(a.device)
