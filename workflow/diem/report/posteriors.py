"""The figure of posterior samples: what was observed, what is believed, and how sure it is."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from diem.report.drawing.images import Heading, image_rows
from diem.report.drawing.style import WIDTH, annotate, styled

__all__ = ["POSTERIORS", "posteriors"]

POSTERIORS = 8
"""The observations whose posteriors are shown, at most."""

SAMPLES = 3
"""The samples of each that are shown, of images."""


def posteriors(shown: Mapping[str, np.ndarray], name: str) -> Figure:
    """Draws posteriors: as images, or as curves where an event is none.

    Arguments:
        shown: The arrays of :func:`diem.inference.sample_files.read_posteriors`.
        name: What the observations are called.
    """
    title = f"{name}: posterior mean, standard deviation and samples"
    shape = shown["mean"].shape[1:]
    if "scale" in shown:  # one axis, or one range of grey, for columns or channels of all units
        offset, scale = shown["offset"], shown["scale"]
        inner = {key: (shown[key] - offset) / scale for key in ("x", "mean", "y") if key in shown}
        shown = {**shown, **inner, "sd": shown["sd"] / scale}
    # Two channels are a complex number, unless they have units of their own.
    if len(shape) == 3 and shape[0] in ((1, 3) if "scale" in shown else (1, 2, 3)):
        return _images(shown, title)
    return _curves(shown, title)


def _images(shown: Mapping[str, np.ndarray], title: str) -> Figure:
    x, sd = shown["x"], _visible(shown["sd"])
    low, high = np.quantile(_visible(shown["mean"]), (0.002, 0.998))
    white = np.quantile(sd, 0.998)

    def grey(values: np.ndarray) -> np.ndarray:
        return 4 * (_visible(values) - low) / max(high - low, 1e-12) - 2

    if "y" in shown:
        rows = {Heading(0, "observed"): grey(shown["y"])}
    else:
        # The adjoint has units of its own.
        adjoint = _visible(shown["adjoint"])
        ends = np.quantile(adjoint, (0.002, 0.998))
        rows = {
            Heading(0, "adjoint\n$A^T y$"): 4 * (adjoint - ends[0]) / max(np.ptp(ends), 1e-12) - 2
        }
    rows |= {
        Heading(1, "posterior\nmean"): grey(shown["mean"]),
        Heading(2, "standard\ndeviation"): 4 * sd / max(white, 1e-12) - 2,
    }
    rows |= {
        Heading(3 + k, f"sample {k + 1}"): grey(x[:, k]) for k in range(min(SAMPLES, x.shape[1]))
    }
    missing = " Orange was not observed." if "y" in shown and np.isnan(shown["y"]).any() else ""
    return image_rows(
        {"": rows},
        title,
        f"Mean and standard deviation are of {x.shape[1]} samples an observation. {_values(shown)}"
        f" from {low:.3g} (black) to {high:.3g} (white), standard deviations from 0 to"
        f" {white:.3g}.{missing}",
    )


def _values(shown: Mapping[str, np.ndarray]) -> str:
    return "(Values - offset) / scale run" if "scale" in shown else "Values run"


def _visible(x: np.ndarray) -> np.ndarray:
    """Returns images of one channel or three: of complex ones the magnitude."""
    return np.linalg.norm(x, axis=1, keepdims=True) if x.shape[1] == 2 else x


@styled
def _curves(shown: Mapping[str, np.ndarray], title: str) -> Figure:
    x = shown["x"].reshape(*shown["x"].shape[:2], -1)
    mean, sd = (shown[key].reshape(len(x), -1) for key in ("mean", "sd"))
    places = np.arange(x.shape[2])
    count = min(4, len(x))
    figure = Figure(figsize=(WIDTH, 2.4))
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for i, ax in enumerate(axes):
        ax.fill_between(places, mean[i] - sd[i], mean[i] + sd[i], color="C0", alpha=0.25, lw=0)
        ax.plot(places, x[i, :8].T, color="C0", alpha=0.35, linewidth=0.6, marker="")
        ax.plot(places, mean[i], color="C0", marker="o" if len(places) < 16 else "")
        if "y" in shown:
            ax.plot(places, shown["y"][i].ravel(), color="C1", linestyle="", marker="x")
        ax.set(title=f"observation {i}", xlabel="component of $x$")
    axes[0].set_ylabel("(value - offset) / scale" if "scale" in shown else "value")
    seen = " Orange crosses are what was observed." if "y" in shown else ""
    annotate(
        figure,
        title,
        f"Line: mean of {x.shape[1]} samples an observation; band: one standard deviation; thin"
        f" lines: samples.{seen}",
    )
    return figure
