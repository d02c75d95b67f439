"""The paper's low-dimensional manifold: a random curve."""

import math
from collections.abc import Callable
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from diem.components import Count, Fraction, Integer, Positive, option
from diem.data.sets.base import SPLITS, DataSet, Split
from diem.seeds import Stage, rng

__all__ = ["Manifold"]

RANGE_GRID = 2**16 + 1
"""Every point is rescaled by the range of this grid. Its steps are so short that the curve leaves
the range of the grid by less than the precision of float32."""

MAX_FREQUENCIES = 4096
"""Far more than the paper's 10. A small `alpha` would ask for more than any memory holds."""


class Manifold(DataSet):
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
    """

    name = "manifold"
    facts = frozenset({"clean", "curve"})

    train: Count = option(65536, "the number of points to train on")
    validation: Count = option(16384, "the number of points for validation")
    test: Count = option(16384, "the number of points for testing")
    dimensions: Annotated[Integer, Field(ge=2)] = option(5, "the dimension of the space")
    alpha: Positive = option(3.0, "the smoothness of the random curve")
    epsilon: Fraction = option(0.001, "the amplitude at which its sum of sines ends")

    @model_validator(mode="after")
    def _has_few_frequencies(self) -> Self:
        if -math.log(self.epsilon) / self.alpha > math.log(MAX_FREQUENCIES):
            raise ValueError(
                f"{{place}}.alpha is {self.alpha}, which with {{place}}.epsilon {self.epsilon} asks"
                f" for more than {MAX_FREQUENCIES:,} frequencies: raise either"
            )
        return self

    def event_shape(self) -> tuple[int, ...]:
        return (self.dimensions,)

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in SPLITS}

    def load(self, seed: int) -> dict[str, Split]:
        point = self._points(seed)
        splits = {}
        # The curve's own parameters are block 0.
        for block, name in enumerate(SPLITS, start=1):
            z = rng(seed, Stage.DATA, block=block).uniform(size=getattr(self, name))
            splits[name] = Split(point(z))
        return splits

    def curve(self, seed: int, points: int) -> np.ndarray:
        r"""Returns the curve that all data lie on.

        Arguments:
            seed: The configuration's seed.
            points: The number of points :math:`P`.

        Returns:
            The points at equidistant parameters :math:`z` from 0 to 1, in this order, float32, with
            shape :math:`(P, \text{dimensions})`. The curve is open: its ends do not meet.
        """
        return self._points(seed)(np.linspace(0.0, 1.0, points))

    def _points(self, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        """Returns the map from parameters, with shape (N,), to points, (N, dimensions)."""
        k = np.arange(1, math.ceil(self.epsilon ** (-1 / self.alpha)) + 1)
        a, b, c = rng(seed, Stage.DATA).uniform(size=(3, self.dimensions, len(k)))

        def raw(z: np.ndarray) -> np.ndarray:
            # One frequency at a time keeps the memory of a long `z` small.
            x = np.zeros((len(z), self.dimensions))
            for j in range(len(k)):
                phase = k[j] * b[:, j] * z[:, None] + c[:, j]
                x += a[:, j] / k[j] ** self.alpha * np.sin(2 * np.pi * phase)
            return x

        grid = raw(np.linspace(0.0, 1.0, RANGE_GRID))
        low, high = grid.min(axis=0), grid.max(axis=0)

        def scaled(z: np.ndarray) -> np.ndarray:
            x = 4 * (raw(z) - low) / (high - low) - 2
            return np.clip(x, -2, 2).astype(np.float32)

        return scaled
