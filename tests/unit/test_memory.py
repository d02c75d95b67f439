"""A batch that does not fit a device's memory is told in a sentence that names its key."""

import pytest
import torch
from helpers import random_gaussian, simulate
from torch import nn

from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers.ddim import DDIM
from diem.em.training import Training, train
from diem.errors import DiemError
from diem.evaluation.draws import prior_samples
from diem.jobs.job import Job

SHAPE = (3,)


class Large(nn.Module):
    """A network that takes too much memory for more than some samples."""

    def __init__(self, most):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.most = most

    def forward(self, x, t):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.weight * x


@pytest.fixture
def denoiser():
    schedule = {"sigma_min": 0.01, "sigma_max": 10.0}
    denoiser = build_denoiser({"name": "mlp", "hidden": [4]}, schedule, SHAPE, 0)
    denoiser.backbone = Large(4)
    return denoiser


def test_an_e_step_names_its_batch(denoiser):
    operator = simulate({"name": "projection", "rows": 2}, SHAPE, 8, torch.float32)
    y = torch.randn(8, 2)
    prior = Prior(random_gaussian(SHAPE, 1, torch.float32), denoiser, {})
    given = (prior, operator, y, 0.1)
    for batch, told in ((None, 8), (5, 5)):
        sampler = PosteriorSampler(DDIM(steps=2), batch=batch)
        message = f"^e_step.batch: the memory of the device 'cpu' .* for {told} samples at once"
        with pytest.raises(DiemError, match=message):
            sampler(*given, torch.Generator().manual_seed(0))
    x = PosteriorSampler(DDIM(steps=2), batch=4)(*given, torch.Generator().manual_seed(0))
    assert x.shape == (8, 3)


@pytest.mark.parametrize("validation", [4, 8], ids=["training", "validation"])
def test_an_m_step_names_its_batch(denoiser, validation):
    x = torch.randn(8, *SHAPE)
    with pytest.raises(DiemError, match=r"^m_step.batch: .* 8 samples at once: set it to less\.$"):
        train(denoiser, x, x[:validation], Training(1, 8, 1e-3), seed=0)


def test_an_evaluation_names_its_block(denoiser):
    prior = Prior(random_gaussian(SHAPE, 1, torch.float32), denoiser, {})
    with pytest.raises(DiemError, match=r"^evaluation.block: .* for 6 samples"):
        prior_samples(prior, DDIM(steps=2), {"samples": 6, "block": 100}, Job())
