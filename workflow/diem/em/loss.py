r"""The loss of training, and the random times and noise that it is taken at.

It is the paper's, :math:`(1 / \sigma_t^2 + 1) \|d(x + \sigma_t z, t) - x\|^2` with :math:`t \sim
\mathrm{Beta}(3, 3)` and :math:`z \sim N(0, I)`.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from azula.denoise import KarrasDenoiser
from torch import Tensor

from diem.diffusion.samplers import noise_levels, sigma_to_time
from diem.em.batches import rows_on
from diem.em.distributed import rank, size
from diem.files.hdf5 import Rows
from diem.seeds import Stage, rng, stream_seed, subset, torch_generator

__all__ = ["Streams", "denoising_error", "validation_loss", "weighted_error"]

LEVELS = 24
"""The number of noise levels at which a denoiser's error is measured."""

SAMPLES = 64
"""The number of samples that it is measured on, at most."""


class Streams(NamedTuple):
    """The random streams of some steps.

    Attributes:
        times: The stream of the times.
        generator: The stream of noise and augmentation, on the denoiser's device.
        dropout: The seed of the network's own draws, of each process its own.
    """

    times: np.random.Generator
    generator: torch.Generator
    dropout: int

    @classmethod
    def of(cls, seed: int, stage: Stage, lap: int, block: int, device: torch.device) -> Self:
        """Returns the streams of a block of steps, see :mod:`diem.seeds`."""
        stream = (seed, stage, lap, block)
        dropout = stream_seed(seed, Stage.DROPOUT, lap, block * size() + rank())
        return cls(rng(*stream), torch_generator(*stream, device), dropout)

    def noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Draws times ``(B,)`` of Beta(3, 3), and noise of the shape of ``x``."""
        t = torch.from_numpy(self.times.beta(3.0, 3.0, len(x))).to(x)
        return t, torch.empty_like(x).normal_(generator=self.generator)


def weighted_error(denoiser: KarrasDenoiser, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
    r"""Returns the mean over a batch of :math:`(1 / \sigma_t^2 + 1) (d(x + \sigma_t z) - x)^2`."""
    _, sigma = denoiser.schedule(t)
    sigma = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    error = denoiser(x + sigma * z, t).mean - x
    return ((1 / sigma**2 + 1) * error.square()).mean()


@torch.no_grad()
def validation_loss(denoiser: KarrasDenoiser, x: Tensor | Rows, seed: int, batch: int) -> float:
    """Returns the loss on validation samples, with the same times and noise at every call.

    Arguments:
        denoiser: The denoiser.
        x: The samples, of shape ``(N, *event)``, on the denoiser's device or on the disk.
        seed: The config's seed.
        batch: How many samples are denoised at once.
    """
    device = next(denoiser.parameters()).device
    streams = Streams.of(seed, Stage.VALIDATION, 0, 0, device)
    total = torch.zeros((), dtype=torch.float64)
    for rows in np.split(np.arange(len(x)), range(batch, len(x), batch)):
        samples = rows_on(x, rows, device)
        error = weighted_error(denoiser, samples, *streams.noise(samples))
        total += len(samples) * error.cpu()
    return float(total) / len(x)


@torch.no_grad()
def denoising_error(
    denoiser: KarrasDenoiser, x: Tensor | Rows, seed: int, batch: int
) -> dict[str, list[float]]:
    """Returns a denoiser's mean squared error at noise levels from the highest to the lowest.

    Arguments:
        denoiser: The denoiser.
        x: Samples that it was not trained on, of shape ``(N, *event)``, on its device or on the
            disk; some are denoised, with the same noise at every level.
        seed: The config's seed.
        batch: How many samples are denoised at once.

    Returns:
        ``sigma``, the levels, and ``error``, the means over samples and values of ``(d - x)^2``.
    """
    device = next(denoiser.parameters()).device
    generator = torch_generator(seed, Stage.VALIDATION, 0, 1, device)
    schedule, count = denoiser.schedule, min(SAMPLES, len(x))
    sigmas = noise_levels("log_linear", LEVELS - 1, schedule.sigma_min, schedule.sigma_max)
    total = torch.zeros(LEVELS, dtype=torch.float64)
    for rows in np.split(subset(len(x), count, seed, block=1), range(batch, count, batch)):
        samples = rows_on(x, rows, device)
        z = torch.empty_like(samples).normal_(generator=generator)
        for level, sigma in enumerate(sigmas.to(samples)):
            mean = denoiser(samples + sigma * z, sigma_to_time(schedule, sigma)).mean
            total[level] += (mean - samples).square().flatten(1).mean(dim=1).sum().cpu()
    return {"sigma": sigmas.tolist(), "error": (total / count).tolist()}
