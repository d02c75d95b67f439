"""The residuals of posterior samples, in units of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from diem.errors import DiemError
from diem.evaluation.arrays import double
from diem.evaluation.metrics.base import Label, Measurement, Metric
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation


__all__ = ["Residual", "residual", "residual_summary"]


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
    y, y_hat = double(y), double(y_hat)
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
    residuals = double(residuals)
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


class Residual(Metric):
    """The magnitudes of ``(y - A x) / sigma_y`` over all draws and observed values.

    Beside them stands how many draws are outliers, see
    :meth:`diem.diffusion.prior.Prior.outlying`: chains that blew up.
    """

    name = "residual"
    order = 130
    labels = {
        "residual_median": Label("Median residual", "sigma_y"),
        "residual_rms": Label("RMS residual", "sigma_y"),
        "residual_beyond_3": Label(
            *("Residuals beyond 3 sigma_y", "fraction"), heading="Beyond 3 sigma_y (fraction)"
        ),
        "residual_outliers": Label(
            *("Outliers of posterior samples", "fraction"), heading="Posterior outliers (fraction)"
        ),
    }
    subject = "posterior"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        posterior = evaluation.posterior
        observed, operator = posterior.observed, posterior.observed.operator
        residuals = [
            residual(observed.y, operator.forward(x), observed.sigma_y)
            for x in posterior.x.unbind(dim=1)
        ]
        summary = residual_summary(torch.stack(residuals, dim=1), operator.observed()[:, None])
        summary["outliers"] = float(evaluation.prior.outlying(posterior.x).float().mean())
        compared = {"reference": "test observations", "reference_samples": len(posterior.x)}
        for name, value in summary.items():
            card = {**posterior.card, **compared}
            yield Measurement(value, "posterior", card, f"{self.name}_{name}")
