"""The figures of images whose Fourier transform was observed, as accelerated MRI does."""

import math
from collections import defaultdict

import numpy as np
import torch
from matplotlib.figure import Figure

from diem.errors import DiemError
from diem.evaluation.arrays import intensities
from diem.report.figures.drawing import Evaluation, Row, Source, image_rows

COUNT = 8
"""The slices that a figure shows of one set of observations."""


def slices(source: Source) -> Figure:
    """Draws test slices: k-space, zero-filled inverse, posterior samples by lap, and the truth.

    Raises:
        DiemError: If the observations are no Fourier transforms of images.
    """
    blocks: dict[str, dict[Row, np.ndarray]] = defaultdict(dict)
    for part in source.evaluations:
        block, arrays = blocks[part.observations], part.arrays
        draws = arrays["posterior/x"]
        block[Row(-2, "k-space\n(log scale)")] = _spectrum(part)
        block[Row(-1, "zero-filled\ninverse")] = _grey(arrays["posterior/adjoint"])
        block[Row.of(part.stage, part.lap)] = _grey(draws[:, 0])
        block[Row(math.inf, "posterior\nmean")] = _grey(draws.mean(axis=1))
        block[Row(math.inf, "truth")] = _grey(arrays["posterior/truth"])
    count = max(4, COUNT // len(blocks))
    return image_rows(
        {name: {row: x[:count] for row, x in block.items()} for name, block in blocks.items()},
        f"{source.experiment}: test slices, from k-space to posterior samples, lap by lap",
        "Columns of k-space that are not measured are orange. Each lap shows one posterior sample a"
        f" slice, from lap 1 on with the same noise; the mean is of {draws.shape[1]} samples after"
        " the last lap.",
    )


def uncertainty(source: Source) -> Figure:
    """Draws posterior mean and standard deviation beside the truth and the error of the mean."""
    blocks: dict[str, dict[Row, np.ndarray]] = {}
    spread = []
    for part in source.evaluations:
        arrays = part.arrays
        draws = _intensities(arrays["posterior/x"])
        truth = _intensities(arrays["posterior/truth"])
        # Of a complex image, the magnitude of the mean.
        mean = _intensities(arrays["posterior/x"].mean(axis=1))
        spread.append((part.observations, truth, arrays, mean, draws.std(axis=1, ddof=1)))
    white = max(np.quantile(np.concatenate([np.abs(m - t), s]), 0.995) for _, t, _, m, s in spread)
    for name, truth, arrays, mean, deviation in spread:
        rows = {
            Row(0, "truth"): truth,
            Row(1, "zero-filled\ninverse"): _intensities(arrays["posterior/adjoint"]),
            Row(2, "posterior\nmean"): mean,
            Row(3, "error of\nthe mean"): np.abs(mean - truth) / white,
            Row(4, "standard\ndeviation"): deviation / white,
        }
        count = max(4, COUNT // len(spread))
        blocks[name] = {row: 4 * x[:count] - 2 for row, x in rows.items()}
    last = source.evaluations[-1]
    return image_rows(
        blocks,
        f"{source.experiment}: what the prior of run {source.labels[last.run]} is sure of",
        f"Mean and standard deviation of {last.arrays['posterior/x'].shape[1]} posterior samples a"
        f" slice, after lap {last.lap}. In the last two rows white is {white:.2f} of the"
        " intensity's range or more. The prior was trained on the first set's observations only.",
    )


def _intensities(x: np.ndarray) -> np.ndarray:
    """Returns images of any leading shape as intensities, of one channel."""
    flat = torch.from_numpy(np.ascontiguousarray(x)).flatten(0, -4)
    return intensities(flat).reshape(*x.shape[:-3], 1, *x.shape[-2:]).numpy()


def _grey(x: np.ndarray) -> np.ndarray:
    return 4 * _intensities(x) - 2


def _spectrum(part: Evaluation) -> np.ndarray:
    """Returns the logarithm of k-space's magnitude over all coils in [-2, 2], NaN where unknown."""
    y = part.arrays["posterior/y"]
    if y.ndim != 4 or y.shape[1] % 2:
        raise DiemError(
            f"figures: slices needs Fourier observations, and those of {part.observations!r} have"
            f" shape {y.shape[1:]}."
        )
    magnitude = np.sqrt(np.square(y).sum(axis=1, keepdims=True))
    decades = 3
    level = np.log10(magnitude / magnitude.max() + 10.0**-decades) / decades + 1
    return np.where(part.arrays["posterior/observed"][:, :1], 4 * level - 2, np.nan)
