"""Chains that start from the previous lap's samples, re-noised, in the place of pure noise.

This is no part of the paper's E-step; the recipe ``fast`` uses it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diem.data.observations import Observed
from diem.diffusion.prior import Prior
from diem.diffusion.solvers import column
from diem.em.blocks import Block
from diem.em.laps import restart_level
from diem.errors import DiemError
from diem.files.hdf5 import Rows
from diem.operators.base import Operator

__all__ = ["Restart", "replace_contradicting"]

Start = Callable[[Block, Observed, torch.Generator], Tensor]
"""Returns what the chains of a block start from, of shape ``(B, *event)``."""


@dataclass(frozen=True)
class Restart:
    """A restart from the previous lap's samples.

    Arguments:
        previous: The file of these samples.
        sigma: The noise level that they are re-noised to.
        residual: If given, the largest residual of a sample to start from, see
            :func:`replace_contradicting`.
    """

    previous: Sequence[str | Path]
    sigma: float
    residual: float | None = None

    @classmethod
    def from_config(
        cls, entry: Mapping[str, Any], lap: int, previous: Sequence[str | Path]
    ) -> "Restart | None":
        """Builds the restart of a lap from the config's ``e_step`` entry.

        Arguments:
            entry: The entry.
            lap: The lap, from 1.
            previous: The file of the previous lap's samples.

        Returns:
            The restart, or none if the lap's chains start from noise.
        """
        sigma = restart_level(entry["restart"], lap)
        return None if sigma is None else cls(previous, sigma, entry["restart_residual"])

    @contextlib.contextmanager
    def starts(self, prior: Prior, counts: Mapping[str, int], repeats: int) -> Iterator[Start]:
        """Opens the samples.

        Arguments:
            prior: The prior, on the device to use.
            counts: The number of observations of each split.
            repeats: The number of chains of each observation, as many as the previous lap's or
                several times as many: then several start from each sample.

        Raises:
            DiemError: If the samples do not fit the observations.
        """
        with contextlib.ExitStack() as opened:
            samples: dict[str, Rows] = {}
            for split, count in counts.items():
                # Each row is read once.
                x = Rows(self.previous, f"{split}/x", prior.event_shape, cache_mb=0)
                samples[split] = opened.enter_context(x)
                drawn, rest = divmod(len(x), count)
                if rest or not drawn or repeats % drawn:
                    raise DiemError(
                        f"{self.previous[0]}: its lap has {len(x)} samples of {split!r}, from which"
                        f" {repeats} chains of each of {count} observations cannot start."
                    )

            def start(block: Block, observed: Observed, generator: torch.Generator) -> Tensor:
                before = samples[block.split]
                first = block.repeat * counts[block.split] % len(before)
                rows = slice(first + block.rows.start, first + block.rows.stop)
                x = torch.from_numpy(before[rows]).to(generator.device)
                if self.residual is None:
                    return x
                likelihood = (observed.operator, observed.y, observed.sigma_y)
                return replace_contradicting(x, prior, *likelihood, self.residual, generator)

            yield start


def replace_contradicting(
    x: Tensor,
    prior: Prior,
    operator: Operator,
    y: Tensor,
    sigma_y: float | Tensor,
    most: float,
    generator: torch.Generator,
) -> Tensor:
    r"""Replaces samples that contradict their observation by samples of the Gaussian posterior.

    A chain that ended in a wrong mode does not leave it when it restarts from a low noise level.

    Arguments:
        x: The samples, of shape ``(B, *event)``.
        prior: The prior, whose Gaussian is sampled.
        operator: The forward operators, one an observation.
        y: The observations, of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        most: The largest RMS over an observation's values of :math:`(y - A x) / \sigma_y` of a
            sample that is kept.
        generator: The random stream, on the prior's device.

    Returns:
        The samples, of shape ``(B, *event)``.
    """
    observed = operator.observed().expand_as(y)
    residual = ((y - operator.forward(x)) / sigma_y * observed).square().flatten(1).sum(dim=1)
    rms = torch.sqrt(residual / observed.flatten(1).sum(dim=1).clamp(min=1))
    fresh = prior.gaussian.sample_posterior(operator, y, sigma_y, generator)
    return torch.where(column(rms <= most, x), x, fresh)
