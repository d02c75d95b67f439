"""Clean data, scaled to [-2, 2] here and nowhere else.

A data set is one function ``(spec, seed) -> {"train": Split, "validation": Split, "test": Split}``,
registered under the name that ``data.name`` selects.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .errors import DiemError, nearest
from .seeds import Stage, rng

__all__ = ["DATASETS", "Split", "load", "manifold_curve"]

SPLITS = ("train", "validation", "test")

# Every point of the manifold is rescaled by the range of this grid. Its steps are so short that
# the curve leaves the range of the grid by less than the precision of float32.
RANGE_GRID = 2**16 + 1

# Far more than the paper's 10. A small `alpha` would ask for more than any memory holds.
MAX_FREQUENCIES = 4096


class Split(NamedTuple):
    """One split of a data set.

    Attributes:
        x: The data in [-2, 2], float32, with shape :math:`(N, *event)`; images are
            :math:`(N, C, H, W)`.
        label: The classes, int64, with shape :math:`(N,)`, or :py:`None` where there are none.
    """

    x: np.ndarray
    label: np.ndarray | None = None


def load(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Returns the splits "train", "validation" and "test" of a data set.

    Arguments:
        spec: The data set's name and its own keys, for example ``{"name": "digits", "validation":
            150, "test": 450}``.
        seed: The configuration's seed.

    Raises:
        DiemError: If the name is unknown, or a key is missing or has a bad value.
    """
    name = _value(spec, "name")
    if name not in DATASETS:
        raise DiemError(f"`data.name` is {name!r}, no data set{nearest(name, DATASETS)}.")
    return DATASETS[name](spec, seed)


def manifold(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    r"""Samples points of a smooth random 1-d manifold, a curve.

    Coordinate :math:`i` of the point with parameter :math:`z \sim \mathcal{U}(0, 1)` is, before it
    is rescaled to [-2, 2],

    .. math:: x_i(z) = \sum_{k=1}^K \frac{a_{ik}}{k^\alpha} \sin(2 \pi (k b_{ik} z + c_{ik}))

    with :math:`a_{ik}, b_{ik}, c_{ik} \sim \mathcal{U}(0, 1)` and
    :math:`K = \lceil \epsilon^{-1/\alpha} \rceil`. The curve depends on the seed, `dimensions`,
    `alpha` and `epsilon` alone. The points of a split do not depend on the other splits, and those
    of a larger split begin with those of a smaller one.

    References:
        | The Remarkable Robustness of Surrogate Gradient Learning for Instilling Complex Function
          in Spiking Neural Networks (Zenke & Vogels, 2021)
        | https://github.com/fzenke/randman

    Arguments:
        spec: The keys `train`, `validation` and `test` (numbers of points), `dimensions`,
            `alpha` (the smoothness) and `epsilon` (the amplitude at which the sum ends).
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape :math:`(\text{dimensions},)`.
    """
    curve = _curve(spec, seed)
    splits = {}
    # The curve's own parameters are block 0.
    for block, name in enumerate(SPLITS, start=1):
        z = rng(seed, Stage.DATA, block=block).uniform(size=_integer(spec, name, minimum=1))
        splits[name] = Split(curve(z))
    return splits


def manifold_curve(spec: dict[str, Any], seed: int, points: int) -> np.ndarray:
    r"""Returns the curve that the points of :func:`manifold` lie on.

    Arguments:
        spec: The keys `dimensions`, `alpha` and `epsilon` of the data set.
        seed: The configuration's seed.
        points: The number of points :math:`P`.

    Returns:
        The points at equidistant parameters :math:`z` from 0 to 1, in this order, float32, with
        shape :math:`(P, \text{dimensions})`. The curve is open: its ends do not meet.
    """
    return _curve(spec, seed)(np.linspace(0.0, 1.0, points))


def digits(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Splits the 1,797 real 8x8 images of handwritten digits that scikit-learn embeds.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998)
        | https://archive.ics.uci.edu/dataset/80

    Arguments:
        spec: The keys `validation` and `test`, numbers of images; the other images are the training
            split.
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape (1, 8, 8), with the digits as labels.
    """
    from sklearn.datasets import load_digits  # takes seconds, and other data sets do without

    validation = _integer(spec, "validation", minimum=1)
    test = _integer(spec, "test", minimum=1)
    images, label = load_digits(return_X_y=True)
    count = len(images)
    if validation + test >= count:
        raise DiemError(
            f"`data.validation` and `data.test` are {validation} and {test}, which leaves none of "
            f"the {count} digits to train on."
        )

    # The pixels are integers from 0 to 16.
    x = (images * (4 / 16) - 2).astype(np.float32).reshape(count, 1, 8, 8)
    label = label.astype(np.int64)
    order = rng(seed, Stage.SPLIT).permutation(count)
    parts = np.split(order, [test, test + validation])
    return {
        name: Split(x[part], label[part])
        for name, part in zip(("test", "validation", "train"), parts, strict=True)
    }


DATASETS: dict[str, Callable[[dict[str, Any], int], dict[str, Split]]] = {
    "digits": digits,
    "manifold": manifold,
}


def _curve(spec: dict[str, Any], seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the map from parameters, with shape (N,), to points, with shape (N, dimensions)."""
    dimensions = _integer(spec, "dimensions", minimum=1)
    alpha = _positive(spec, "alpha")
    epsilon = _positive(spec, "epsilon")
    if epsilon >= 1:
        raise DiemError(f"`data.epsilon` is {epsilon}, but it must be less than 1.")

    if -math.log(epsilon) / alpha > math.log(MAX_FREQUENCIES):
        raise DiemError(
            f"`data.alpha` is {alpha}, which with `data.epsilon` {epsilon} asks for more than "
            f"{MAX_FREQUENCIES:,} frequencies: raise either."
        )
    k = np.arange(1, math.ceil(epsilon ** (-1 / alpha)) + 1)
    a, b, c = rng(seed, Stage.DATA).uniform(size=(3, dimensions, len(k)))

    def raw(z: np.ndarray) -> np.ndarray:
        # One frequency at a time keeps the memory of a long `z` small.
        x = np.zeros((len(z), dimensions))
        for j in range(len(k)):
            phase = k[j] * b[:, j] * z[:, None] + c[:, j]
            x += a[:, j] / k[j] ** alpha * np.sin(2 * np.pi * phase)
        return x

    grid = raw(np.linspace(0.0, 1.0, RANGE_GRID))
    low, high = grid.min(axis=0), grid.max(axis=0)

    def scaled(z: np.ndarray) -> np.ndarray:
        x = 4 * (raw(z) - low) / (high - low) - 2
        return np.clip(x, -2, 2).astype(np.float32)

    return scaled


def _value(spec: dict[str, Any], key: str) -> Any:
    if key not in spec:
        raise DiemError(f"`data.{key}` is missing.")
    return spec[key]


def _integer(spec: dict[str, Any], key: str, minimum: int) -> int:
    value = _value(spec, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise DiemError(f"`data.{key}` is {value!r}, but it must be an integer >= {minimum}.")
    return value


def _positive(spec: dict[str, Any], key: str) -> float:
    value = _value(spec, key)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise DiemError(f"`data.{key}` is {value!r}, but it must be a number > 0.")
    return float(value)
