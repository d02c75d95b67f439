"""The figure of posterior mean and standard deviation beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diem.report.figures.base import Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Uncertainty"]

COUNT = 8
"""The slices that the figure shows, at most, of one set of observations."""


class Uncertainty(Figure):
    """Posterior mean and standard deviation, beside the truth and the error of the mean."""

    name = "uncertainty"
    clean = True
    reads = Reads(
        stages=("reconstructions",),
        arrays=("posterior/x", "posterior/adjoint", "posterior/truth"),
        count=COUNT,
    )
    caption = """\
Posterior mean and standard deviation of test slices of ``{{ snakemake.wildcards.experiment
}}``, beside the truth and the mean's error, also for observations that the prior was not
trained on.
"""

    def problem(self, facts: Facts) -> str | None:
        if reason := super().problem(facts):
            return reason
        return None if facts.images and facts.reconstructs else "evaluation.reconstruct of images"

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading, image_rows
        from diem.report.drawing.intensities import intensities

        found, told = [], []
        for evaluation in source.evaluations:
            arrays = evaluation.arrays
            draws = intensities(arrays["posterior/x"])
            truth = intensities(arrays["posterior/truth"])
            adjoint = intensities(arrays["posterior/adjoint"])
            # Of a complex image, the magnitude of the mean.
            mean = intensities(arrays["posterior/x"].mean(axis=1))
            deviation = draws.std(axis=1, ddof=1)
            found.append((evaluation.observations, truth, adjoint, mean, deviation))
            held, expected, follows = belief(draws, truth, mean, deviation)
            told.append(
                f"{evaluation.observations}: the samples' range should hold {expected:.0%} of all"
                f" pixels, and holds {held:.0%}; standard deviation and error have a correlation"
                f" of {follows:.2f}."
            )
        # Errors and deviations share one scale.
        levels = [np.concatenate([np.abs(mean - x), sd]) for _, x, _, mean, sd in found]
        white = max(np.quantile(level, 0.995) for level in levels)
        panels = {}
        count = max(4, COUNT // len(found))
        for name, truth, adjoint, mean, deviation in found:
            rows = {
                Heading(0, "truth"): truth,
                Heading(1, "zero-filled\ninverse"): adjoint,
                Heading(2, "posterior\nmean"): mean,
                Heading(3, "error of\nthe mean"): np.abs(mean - truth) / white,
                Heading(4, "standard\ndeviation"): deviation / white,
            }
            panels[name] = {row: 4 * x[:count] - 2 for row, x in rows.items()}
        last = source.evaluations[-1]
        samples = last.arrays["posterior/x"].shape[1]
        return image_rows(
            panels,
            f"{source.experiment}: what the prior of run {source.labels[last.run]} is sure of",
            f"Mean and standard deviation of {samples} posterior samples a slice,"
            f" after lap {last.lap}. In the last two rows white is {white:.2f} of the"
            f" intensity's range or more. The prior was trained on {source.trained[last.run]} only."
            f" {' '.join(told)}",
        )


def belief(
    draws: np.ndarray, truth: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> tuple[float, float, float]:
    """Returns how far posterior samples of images can be believed.

    Arguments:
        draws: The samples, ``(N, K, *event)``.
        truth: What they are of, ``(N, *event)``.
        mean: Their means, of the same shape.
        deviation: Their standard deviations, of the same shape.

    Returns:
        The fraction of values between the least and the greatest sample, what it is of a perfect
        sampler, and the correlation of standard deviations with the mean's absolute errors.
    """
    count = draws.shape[1]
    held = (draws.min(axis=1) <= truth) & (truth <= draws.max(axis=1))
    error = np.abs(mean - truth)
    follows = np.corrcoef(error.ravel(), deviation.ravel())[0, 1]
    return float(held.mean()), (count - 1) / (count + 1), float(follows)
