"""How far each approximation is from the true posterior, over random cases and noise levels."""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem import __version__
from diem.evaluation.transport import truncated_transport
from diem.jobs.job import Job
from diem.jobs.resume import prefixed
from diem.paper.heuristics.mixture import ObservedMixture, double_precision, random_curve
from diem.paper.heuristics.posteriors import EXACT, noisy_posteriors
from diem.seeds import Stage, rng

__all__ = ["COLUMNS", "divergences"]

COLUMNS = (
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
:func:`diem.evaluation.transport.truncated_transport`; ``effective_samples`` is Kish's number of the
weights' size.
"""

SETTINGS = (
    "regularization",
    "tolerance",
    "iterations",
    "prior_samples",
    "samples",
    "floor",
    "dimensions",
    "components",
    "thickness",
    "rows",
    "sigma_y",
)
"""The settings of an entry that are columns of its rows."""


def divergences(
    name: str, entry: Mapping[str, Any], cases: Iterable[int], job: Job
) -> list[dict[str, Any]]:
    """Measures how far each q(x_t | y) is from p(x_t | y), over random cases and noise levels.

    Arguments:
        name: The name of the entry.
        entry: The config's entry of the heuristics.
        cases: The numbers of the cases.
        job: The job. Its progress counts noise levels.

    Returns:
        Rows with the columns :data:`COLUMNS`.
    """
    shared = {
        "heuristics": name,
        **{key: entry[key] for key in SETTINGS},
        "seed": job.seed,
        "diem": __version__,
        "torch": torch.__version__,
    }
    rows = []
    for case in cases:
        problem = random_curve(entry, job.seed, case).to(double_precision(job.device))
        for level, sigma in enumerate(entry["sigmas"], start=1):
            measured = _transports(problem, entry, case, level, job)
            subtracted = measured.pop("subtracted")["cost"]
            for covariance, numbers in measured.items():
                noise = covariance == EXACT
                value = numbers["cost"] - subtracted
                row = {
                    **shared,
                    **numbers,
                    "subtracted": subtracted,
                    "case": case,
                    "sigma": sigma,
                    "covariance": covariance,
                    "metric": "divergence_noise" if noise else "truncated_divergence",
                    "value": max(abs(value) if noise else value, entry["floor"]),
                }
                rows.append({key: row[key] for key in COLUMNS})
            job.progress.update(1)
    return rows


def _transports(
    problem: ObservedMixture, entry: Mapping[str, Any], case: int, level: int, job: Job
) -> dict[str, dict[str, float]]:
    """Measures transports from samples of p(x_t | y) at one noise level, each a piece of the job.

    Returns:
        The columns ``cost``, ``violation`` and ``effective_samples`` by what was transported to:
        ``subtracted`` and :data:`EXACT`, which are other samples of p(x_t | y), and the
        covariances.
    """
    count, covariances = entry["samples"], entry["covariances"]
    settings = {key: entry[key] for key in ("regularization", "tolerance", "iterations")}

    @cache  # if all pieces were kept, nothing is drawn
    def drawn() -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        generator = rng(job.seed, Stage.HEURISTICS, lap=level, block=case)
        counts = {EXACT: 3 * count, **dict.fromkeys(covariances, count)}
        samples = noisy_posteriors(
            problem, entry["sigmas"][level - 1], entry["prior_samples"], counts, generator
        )
        exact, effective = samples[EXACT]
        first, second, third = exact.split(count)
        return first, samples | {"subtracted": (second, effective), EXACT: (third, effective)}

    def transport(name: str, piece: str) -> dict[str, np.ndarray]:
        first, samples = drawn()
        other, effective = samples[name]
        plan = truncated_transport(first, other, **settings, keep=prefixed(job.keep, piece))
        return {
            "cost": np.array(plan.cost),
            "violation": np.array(plan.violation),
            "effective_samples": np.array(effective),
        }

    measured = {}
    for name in ("subtracted", EXACT, *covariances):
        piece = f"{case}/{level}/{name}"
        arrays = job.keep(piece, partial(transport, name, piece))
        measured[name] = {key: float(array) for key, array in arrays.items()}
    return measured
