r"""The heuristics for :math:`V` compared where everything is exact: a prior that is a mixture.

For a mixture of Gaussians, the score and the Hessian of :math:`\log p(x_t)` are known, hence also
:math:`\mathrm{E}[x \mid x_t]` and :math:`\mathrm{V}[x \mid x_t]`. What is left between the true
:math:`p(x_t \mid y)` and

.. math::
    q(x_t \mid y) \propto p(x_t) \, N(y \mid A \, \mathrm{E}[x \mid x_t], \Sigma_y + A V A^\top)

is the choice of :math:`V`, see :data:`diem.diffusion.posterior.COVARIANCES`. The noise is added,
:math:`x_t = x + \sigma_t z`.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from diem import __version__
from diem.data.sets import DATASETS
from diem.evaluation import metrics
from diem.jobs.resume import Keep, no_cache, prefixed
from diem.report.tables import NONE, Readable
from diem.seeds import Stage, rng

__all__ = [
    "CARD",
    "COIL_ARRAYS",
    "EXACT",
    "Mixture",
    "Problem",
    "card",
    "coil",
    "coil_samples",
    "divergences",
    "log_likelihoods",
    "random_problem",
    "readable",
    "resample",
    "summary",
]

CARD = (
    "heuristics",
    "case",
    "sigma",
    "covariance",
    "metric",
    "value",
    "cost",
    "subtracted",
    "violation",
    "effective_samples",
    "prior_samples",
    "samples",
    "regularization",
    "tolerance",
    "iterations",
    "floor",
    "dimensions",
    "components",
    "thickness",
    "rows",
    "sigma_y",
    "seed",
    "diem",
    "torch",
)
"""The columns of a row, in order.

``value`` is ``cost - subtracted``, at least ``floor``: the transport's cost between samples of
:math:`p(x_t | y)` and of :math:`q(x_t | y)`, without the cost between two independent sets of the
former. For the covariance :data:`EXACT` both are of :math:`p(x_t | y)`, and ``value`` is the
difference's magnitude: the noise of all others. ``violation`` is of the plan's marginal, see
:class:`diem.evaluation.metrics.Transport`; ``effective_samples`` is Kish's number of the weights' size.
"""

EXACT = "exact"

COIL_ARRAYS = ("prior", "posterior", EXACT)
"""The arrays of the coil beside those of the covariances, see :func:`coil_samples`."""

PAIRS = 2**20
"""How many pairs of a sample and a component are held in memory at once."""


@dataclass(frozen=True)
class Mixture:
    r"""A mixture of Gaussians :math:`N(\mu_i, \tau^2 I)` of equal weights.

    Arguments:
        means: The means :math:`\mu_i`, float64, with shape :math:`(K, D)`.
        thickness: The standard deviation :math:`\tau`.
    """

    means: Tensor
    thickness: float

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draws samples, with shape ``(count, D)``."""
        index = torch.from_numpy(generator.integers(len(self.means), size=count))
        x = self.means[index.to(self.means.device)]
        return x + self.thickness * _normal(x, generator)

    def covariance(self) -> Tensor:
        """Returns the covariance of ``x``, with shape :math:`(D, D)`."""
        within = self.thickness**2 * torch.eye(self.means.shape[1]).to(self.means)
        return within + torch.cov(self.means.T, correction=0)

    def score_and_hessian(self, x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        r"""Returns the gradient and the Hessian of :math:`\log p(x_t)`.

        With the components' weights :math:`r_i(x_t)`, the mean :math:`m` and the covariance
        :math:`C` of the :math:`\mu_i` under them, and :math:`s^2 = \tau^2 + \sigma_t^2`, they are

        .. math:: \frac{m - x_t}{s^2} \qquad \text{and} \qquad \frac{C}{s^4} - \frac{I}{s^2} .

        Arguments:
            x_t: Noisy samples, with shape :math:`(N, D)`.
            sigma: The standard deviation :math:`\sigma_t` of their noise.

        Returns:
            The scores, with shape :math:`(N, D)`, and the Hessians, with shape :math:`(N, D, D)`.
        """
        components, size = self.means.shape
        variance = self.thickness**2 + sigma**2
        squares = (self.means[:, :, None] * self.means[:, None, :]).flatten(1)
        moments = torch.cat([torch.ones_like(self.means[:, :1]), self.means, squares], dim=1)
        offset = self.means.square().sum(dim=1) / 2
        parts = []
        for rows in x_t.split(max(PAIRS // components, 1)):
            logits = (rows @ self.means.T - offset) / variance
            logits -= logits.amax(dim=1, keepdim=True)
            parts.append(logits.exp_() @ moments)
        sums = torch.cat(parts)
        mean, square = (sums[:, 1:] / sums[:, :1]).split([size, size**2], dim=1)
        covariance = square.unflatten(1, (size, size)) - mean[:, :, None] * mean[:, None, :]
        identity = torch.eye(size).to(x_t)
        return (mean - x_t) / variance, covariance / variance**2 - identity / variance


class Problem(NamedTuple):
    r"""A prior and one observation :math:`y = A x + n`, :math:`n \sim N(0, \sigma_y^2 I)`.

    Attributes:
        prior: The prior.
        matrix: The matrix :math:`A`, with shape :math:`(M, D)`.
        y: The observation, with shape :math:`(M,)`.
        sigma_y: The standard deviation :math:`\sigma_y`.
    """

    prior: Mixture
    matrix: Tensor
    y: Tensor
    sigma_y: float

    def to(self, device: torch.device) -> "Problem":
        """Returns the same problem on a device."""
        prior = Mixture(self.prior.means.to(device), self.prior.thickness)
        return Problem(prior, self.matrix.to(device), self.y.to(device), self.sigma_y)


def random_problem(entry: Mapping[str, Any], seed: int, case: int) -> Problem:
    """Draws a curve, the components along it, and an observation of a sample by unit rows.

    Arguments:
        entry: The config's entry of the heuristics.
        seed: The config's seed.
        case: The number of the case, from 1; each is independent of the others.
    """
    generator = rng(seed, Stage.HEURISTICS, block=case)
    curve = {"name": "manifold", "train": entry["components"], "validation": 1, "test": 1}
    shape = {key: entry[key] for key in ("dimensions", "alpha", "epsilon")}
    means = DATASETS.parse({**curve, **shape}).load(int(generator.integers(2**63)))["train"].x
    prior = Mixture(torch.from_numpy(means).double(), entry["thickness"])
    matrix = torch.from_numpy(generator.standard_normal((entry["rows"], entry["dimensions"])))
    matrix = matrix / torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    y = matrix @ prior.sample(1, generator)[0]
    y += entry["sigma_y"] * _normal(y, generator)
    return Problem(prior, matrix, y, entry["sigma_y"])


def coil(entry: Mapping[str, Any]) -> Problem:
    r"""Returns components along :math:`(2 \sin u, 2 \cos u, u / \pi - 2)`, u in [0, 2 pi].

    The observation is :math:`y = 0` with :math:`A = (1, 0, 2)`.

    Arguments:
        entry: The config's entry of the heuristics.
    """
    u = torch.linspace(0, 2 * math.pi, entry["components"], dtype=torch.float64)
    means = torch.stack([2 * u.sin(), 2 * u.cos(), 2 * u / math.pi - 2], dim=1)
    matrix = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    prior = Mixture(means, entry["thickness"])
    return Problem(prior, matrix, torch.zeros(1, dtype=torch.float64), entry["sigma_y"])


def log_likelihoods(
    problem: Problem, x_t: Tensor, sigma: float, covariances: Sequence[str]
) -> Tensor:
    r"""Returns :math:`\log q(y \mid x_t)` for several choices of :math:`V`.

    Arguments:
        problem: The prior and the observation.
        x_t: Noisy samples, with shape :math:`(N, D)`.
        sigma: The standard deviation of their noise.
        covariances: Names of :data:`diem.diffusion.posterior.COVARIANCES`.

    Returns:
        The logarithms, with shape ``(len(covariances), N)``.
    """
    matrix, variance_y = problem.matrix, problem.sigma_y**2 * torch.eye(len(problem.y)).to(x_t)
    parts = []
    for rows in x_t.split(max(PAIRS // len(problem.prior.means), 1)):
        score, hessian = problem.prior.score_and_hessian(rows, sigma)
        mean = (rows + sigma**2 * score) @ matrix.T
        part = []
        for name in covariances:
            v = _covariance(name, problem.prior, sigma, hessian)
            normal = MultivariateNormal(
                mean, variance_y + matrix @ v @ matrix.T, validate_args=False
            )
            part.append(normal.log_prob(problem.y))
        parts.append(torch.stack(part))
    return torch.cat(parts, dim=1)


def _covariance(name: str, prior: Mixture, sigma: float, hessian: Tensor) -> Tensor:
    """Returns ``V``, with shape (D, D), or (N, D, D) where it depends on the sample."""
    identity = torch.eye(hessian.shape[-1]).to(hessian)
    variance = sigma**2
    if name == "tweedie":
        return variance * (identity + variance * hessian)
    if name == "cov_x":
        covariance = prior.covariance()
        # (Sigma_x^-1 + Sigma_t^-1)^-1
        return variance * torch.linalg.solve(covariance + variance * identity, covariance)
    return {
        "identity": variance / (1 + variance) * identity,
        "cov_t": variance * identity,
        "zeros": 0 * identity,
    }[name]


def resample(
    x: Tensor, log_weights: Tensor, count: int, generator: np.random.Generator
) -> tuple[Tensor, float]:
    """Draws from samples in proportion to their weights, with replacement.

    Arguments:
        x: The samples, with shape ``(N, D)``.
        log_weights: The logarithms of their weights, up to a constant, with shape ``(N,)``.
        count: How many to draw.
        generator: The generator to draw with.

    Returns:
        The drawn samples, with shape ``(count, D)``, and the effective number of samples.
    """
    weights = log_weights.softmax(dim=0).cpu().numpy()
    index = torch.from_numpy(generator.choice(len(x), size=count, p=weights / weights.sum()))
    return x[index.to(x.device)], float(1 / np.square(weights).sum())


def _noisy_posteriors(
    problem: Problem,
    sigma: float,
    covariances: Sequence[str],
    prior_samples: int,
    samples: Mapping[str, int],
    generator: np.random.Generator,
) -> dict[str, tuple[Tensor, float]]:
    """Draws samples by name, with their effective numbers.

    The names are ``posterior`` for p(x | y), :data:`EXACT` for the same samples with noise, of
    p(x_t | y), and those of the covariances for q(x_t | y). All are drawn from ``prior_samples`` of
    the prior, as many as ``samples`` says.
    """
    x = problem.prior.sample(prior_samples, generator)
    residual = (problem.y - x @ problem.matrix.T) / problem.sigma_y
    log_weights = -residual.square().sum(dim=1) / 2
    x_t = x + sigma * _normal(x, generator)
    clean, effective = resample(x, log_weights, samples[EXACT], generator)
    noisy = clean + sigma * _normal(clean, generator)
    drawn = {"posterior": (clean, effective), EXACT: (noisy, effective)}
    likelihoods = log_likelihoods(problem, x_t, sigma, covariances)
    for name, log_likelihood in zip(covariances, likelihoods, strict=True):
        drawn[name] = resample(x_t, log_likelihood, samples[name], generator)
    return drawn


def _normal(like: Tensor, generator: np.random.Generator) -> Tensor:
    """Draws standard normal numbers on the CPU, so that they are the same on every device."""
    return torch.from_numpy(generator.standard_normal(like.shape)).to(like)


def divergences(
    name: str,
    entry: Mapping[str, Any],
    seed: int,
    cases: Iterable[int],
    device: torch.device,
    keep: Keep = no_cache,
    progress: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Measures how far each q(x_t | y) is from p(x_t | y), over random cases and noise levels.

    Arguments:
        name: The name of the entry.
        entry: The config's entry of the heuristics.
        seed: The config's seed.
        cases: The numbers of the cases.
        device: The device to compute on.
        keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`.
        progress: Called with the number of noise levels done.

    Returns:
        Rows with the columns :data:`CARD`.
    """
    if device.type == "mps":
        device = torch.device("cpu")  # MPS has no double precision
    count, covariances = entry["samples"], entry["covariances"]
    wanted = {EXACT: 3 * count, **dict.fromkeys(covariances, count)}
    settings = {key: entry[key] for key in ("regularization", "tolerance", "iterations")}
    keys = ("prior_samples", "samples", "floor", "dimensions", "components", "thickness")
    shared = {
        "heuristics": name,
        **settings,
        **{key: entry[key] for key in (*keys, "rows", "sigma_y")},
        "seed": seed,
        "diem": __version__,
        "torch": torch.__version__,
    }

    def measured(
        problem: Problem, case: int, level: int, sigma: float
    ) -> dict[str, Mapping[str, np.ndarray]]:
        """Returns the numbers of ``compared`` and of what is subtracted, a piece each."""

        @cache  # unless all are kept
        def drawn() -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
            generator = rng(seed, Stage.HEURISTICS, lap=level, block=case)
            samples = _noisy_posteriors(
                problem, sigma, covariances, entry["prior_samples"], wanted, generator
            )
            exact, effective = samples[EXACT]
            first, second, third = exact.split(count)
            more = {"subtracted": (second, effective), EXACT: (third, effective)}
            return first, samples | more

        def transport(name: str, piece: str) -> dict[str, np.ndarray]:
            first, samples = drawn()
            other, effective = samples[name]
            plan = metrics.truncated_transport(first, other, **settings, keep=prefixed(keep, piece))
            numbers = {"cost": plan.cost, "violation": plan.violation}
            return {k: np.array(v) for k, v in {**numbers, "effective_samples": effective}.items()}

        pieces = {name: f"{case}/{level}/{name}" for name in ("subtracted", *compared)}
        return {
            name: keep(piece, partial(transport, name, piece)) for name, piece in pieces.items()
        }

    rows, compared = [], (EXACT, *covariances)
    for case in cases:
        problem = random_problem(entry, seed, case).to(device)
        for level, sigma in enumerate(entry["sigmas"], start=1):
            numbers = measured(problem, case, level, sigma)
            subtracted = float(numbers["subtracted"]["cost"])
            for covariance in compared:
                told = {name: float(value) for name, value in numbers[covariance].items()}
                value = told["cost"] - subtracted
                noise = covariance == EXACT
                row = {
                    **shared,
                    **told,
                    "subtracted": subtracted,
                    "case": case,
                    "sigma": sigma,
                    "covariance": covariance,
                    "metric": "divergence_noise" if noise else "truncated_divergence",
                    "value": max(abs(value) if noise else value, entry["floor"]),
                }
                rows.append({key: row[key] for key in CARD})
            progress(1)
    return rows


def coil_samples(
    entry: Mapping[str, Any], seed: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Draws the samples that the figure of the coil shows.

    Arguments:
        entry: The config's entry of the heuristics.
        seed: The config's seed.
        device: The device to compute on.

    Returns:
        Arrays, float32, with shape ``(samples, 3)``: ``prior``, ``posterior``, :data:`EXACT` for
        p(x_t | y), and one for q(x_t | y) with each covariance.
    """
    if device.type == "mps":
        device = torch.device("cpu")  # MPS has no double precision
    problem, count = coil(entry).to(device), entry["coil"]["samples"]
    generator = rng(seed, Stage.HEURISTICS)  # block 0, which is no case
    drawn = _noisy_posteriors(
        problem,
        entry["coil"]["sigma"],
        entry["covariances"],
        entry["coil"]["prior_samples"],
        dict.fromkeys((EXACT, *entry["covariances"]), count),
        generator,
    )
    prior = {"prior": problem.prior.sample(count, generator)}
    arrays = prior | {name: samples for name, (samples, _) in drawn.items()}
    return {name: samples.float().cpu().numpy() for name, samples in arrays.items()}


def summary(rows: pd.DataFrame, published: str | Path) -> pd.DataFrame:
    """Returns median and quartiles over the cases, beside the published medians.

    Arguments:
        rows: Rows with the columns :data:`CARD`.
        published: The file of the published medians: a row a ``sigma``, a column a covariance, and
            the ``source``.

    Returns:
        A row for each noise level and covariance: ``sigma``, ``covariance``, ``cases``,
        ``lower_quartile``, ``median``, ``upper_quartile``, ``published`` (NaN where nothing is),
        its ``source``, and the ``card`` of our numbers.
    """
    told = pd.read_csv(published)
    told = told.melt(["sigma", "source"], var_name="covariance", value_name="published")
    values = rows.groupby(["sigma", "covariance"], sort=False)["value"]
    table = values.agg(
        cases="size",
        lower_quartile=lambda value: value.quantile(0.25),
        median="median",
        upper_quartile=lambda value: value.quantile(0.75),
    ).reset_index()
    table = table.merge(told, how="left", on=["sigma", "covariance"])
    return table.assign(source=table["source"].fillna(""), card=card(rows))


def card(rows: pd.DataFrame) -> str:
    """Returns what made the numbers of rows, in words."""
    row = rows.iloc[0]
    cases = rows["case"].nunique()
    return (
        f"{cases:,} random curves of {row['components']} components in {row['dimensions']}"
        f" dimensions, thickness {row['thickness']:g}, {row['rows']} observed value(s), sigma_y"
        f" {row['sigma_y']:g}; {row['samples']:,} samples resampled from {row['prior_samples']:,}"
        f" of the prior; at most {row['iterations']:,} Sinkhorn iterations from zero, lambda"
        f" {row['regularization']:g}, tolerance {row['tolerance']:g}, floor {row['floor']:g}; seed"
        f" {row['seed']}, diem {row['diem']}, PyTorch {row['torch']}"
    )


def readable(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`summary` for the eye: a row a noise level."""
    names = list(dict.fromkeys(table["covariance"]))
    header = [["Noise level"]]
    for name in names:
        header.append(["q = p (noise)"] if name == EXACT else [name, "↓"])
        if table.loc[table["covariance"] == name, "published"].notna().any():
            header.append([name, "published"])
    body = []
    for sigma, level in table.groupby("sigma"):
        cells = level.set_index("covariance")
        line = [f"{sigma:g}"]
        for name in names:
            cell = cells.loc[name]
            line.append(f"{cell['median']:.1e}")
            if [name, "published"] in header:
                line.append(NONE if pd.isna(cell["published"]) else f"{cell['published']:.1e}")
        body.append(line)
    source = next((text for text in table["source"] if text), None)
    made = table["card"].iloc[0]
    notes = [
        f"Ours: medians of the truncated divergence, in squared data units: {made}.",
        "q = p: median of the magnitude for two independent sets of p(x_t | y), which is the noise"
        " of the other columns.",
    ]
    return Readable(header, body, 1, notes + ([f"Published: {source}."] if source else []))
