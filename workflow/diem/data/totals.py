"""Sums over observations, from which a check concludes whether they are plausible."""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diem.data.observations import Observed

__all__ = ["Totals"]

COMPARED = 2**20
"""Copies are looked for among so many observations of a split, whose digests are in memory."""

LEVELS = 4096
"""Different values of ``y`` are collected until there are more than so many."""


@dataclass
class Totals:
    """What a pass through the observations of a split collects.

    Attributes:
        count: The number of observations.
        blank: How many of them observe nothing.
        values: The number of values that are observed.
        total: Their sum.
        square: The sum of their squares.
        noise: The sum of the variances of their noise.
        low: The lowest value.
        high: The highest value.
        sigma_low: The lowest standard deviation.
        sigma_high: The highest standard deviation.
        white: The sum of squares of ``A x`` for white ``x``.
        ones: The same for ``x`` that is one everywhere.
        preserved: Whether ``A x`` is one too, for this ``x``, wherever it is observed.
        difference: The sum of squared differences of neighbouring values.
        difference_noise: What the noise contributes to it.
        seen: How much each value of ``x`` takes part in the observations, of the event's shape.
        lowest: The lowest of each value of ``y``.
        highest: The highest of each value of ``y``.
        levels: Different values of ``y``.
        hashes: Digests of the observations.
        repeated: How many observations have the digest of an earlier one.
        index: The indices, block by block.
    """

    count: int = 0
    blank: int = 0
    values: int = 0
    total: float = 0.0
    square: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    sigma_low: float = math.inf
    sigma_high: float = 0.0
    white: float = 0.0
    ones: float = 0.0
    preserved: bool = True
    difference: float = 0.0
    difference_noise: float = 0.0
    seen: Tensor | None = None
    lowest: Tensor | None = None
    highest: Tensor | None = None
    levels: set[float] = field(default_factory=set)
    hashes: set[bytes] = field(default_factory=set)
    repeated: int = 0
    index: list[np.ndarray] = field(default_factory=list)

    def add(self, block: Observed, generator: torch.Generator) -> None:
        """Adds the observations of a block."""
        observed = block.operator.observed().expand_as(block.y)
        any_value = observed.flatten(1).any(dim=1)
        self.count += len(block.y)
        self.values += int(observed.sum())
        self.blank += int((~any_value).sum())
        self.index.append(block.index)
        if any_value.any():
            self._add_values(block, observed)
            self._add_operator(block, observed, generator)
            self._add_digests(block.y[any_value])

    def _add_values(self, block: Observed, observed: Tensor) -> None:
        y = block.y.double()
        sigma_y = block.sigma_y.double().expand_as(y)
        values, sigmas = y[observed], sigma_y[observed]
        self.total += float(y.sum())
        self.square += float(y.square().sum())
        self.noise += float(sigmas.square().sum())
        self.low, self.high = (
            min(self.low, float(values.min())),
            max(self.high, float(values.max())),
        )
        self.sigma_low = min(self.sigma_low, float(sigmas.min()))
        self.sigma_high = max(self.sigma_high, float(sigmas.max()))
        if len(self.levels) <= LEVELS:
            self.levels.update(block.y[observed][:65536].unique().tolist())

        low = torch.where(observed, y, math.inf).amin(dim=0)
        high = torch.where(observed, y, -math.inf).amax(dim=0)
        self.lowest = low if self.lowest is None else torch.minimum(self.lowest, low)
        self.highest = high if self.highest is None else torch.maximum(self.highest, high)
        both = observed[..., 1:] & observed[..., :-1]
        self.difference += float(y.diff(dim=-1)[both].square().sum())
        noise = sigma_y[..., 1:].square() + sigma_y[..., :-1].square()
        self.difference_noise += float(noise[both].sum())

    def _add_operator(self, block: Observed, observed: Tensor, generator: torch.Generator) -> None:
        operator = block.operator
        signs = torch.randint(2, block.y.shape, generator=generator) * 2.0 - 1
        seen = operator.adjoint(signs * observed).square().sum(dim=0)
        self.seen = seen if self.seen is None else self.seen + seen
        event = (len(block.y), *operator.event_shape)
        white = operator.forward(torch.randint(2, event, generator=generator) * 2.0 - 1)
        ones = operator.forward(torch.ones(event))
        self.white += float(white.double().square().sum())
        self.ones += float(ones.double().square().sum())
        self.preserved &= bool(torch.allclose(ones[observed], torch.ones(()), atol=1e-3))

    def _add_digests(self, y: Tensor) -> None:
        for observation in y.numpy():
            if len(self.hashes) >= COMPARED:
                return
            digest = hashlib.blake2b(observation.tobytes(), digest_size=12).digest()
            self.repeated += digest in self.hashes
            self.hashes.add(digest)

    def never_seen(self) -> tuple[int, int]:
        """Returns how many values of ``x`` are never observed, and how many there are."""
        assert self.seen is not None
        return int((self.seen == 0).sum()), self.seen.numel()

    def constant(self) -> tuple[int, int]:
        """Returns how many values of ``y`` are always the same, and how many there are."""
        assert self.lowest is not None
        assert self.highest is not None
        same = (self.lowest == self.highest) & torch.isfinite(self.lowest)
        return int(same.sum()), self.lowest.numel()
