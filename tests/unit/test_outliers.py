"""Posterior samples that are far from all that a prior was trained on are counted and told."""

import warnings

import numpy as np
import pytest
import torch
from azula.noise import VESchedule
from helpers import observe, random_gaussian, simulate
from test_priors import E_STEP, MASK, SCHEDULE, SHAPE

from diem.data.observations import Observations, save_observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import CARD_RANGE, Prior, sample_range
from diem.diffusion.samplers.ddim import DDIM
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.files.hdf5 import Reader
from diem.inference.prior_denoiser import OutlierWarning, PriorDenoiser
from diem.inference.sample_files import write_posteriors
from diem.jobs.job import Job

WIDE, NARROW = [-50.0, 50.0], [1e-6, 2e-6]


def prior(told, data=None):
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    card = {"lap": 1, "e_step": E_STEP, CARD_RANGE: told, "data": data or {}}
    return Prior(gaussian, gaussian.denoiser(VESchedule(**SCHEDULE)), card)


@pytest.mark.parametrize(
    ("value", "outlying"),
    [(0.0, False), (5.9, False), (-1.9, False), (6.1, True), (-2.1, True), (float("nan"), True)],
)
def test_far_is_more_than_half_a_range_beyond_it(value, outlying):
    x = torch.ones(2, 3, *SHAPE)
    x[1, 2, 0, 1, 1] = value

    found = prior([0.0, 4.0]).outlying(x)

    assert found.tolist() == [[False] * 3, [False, False, outlying]]


def test_the_range_is_that_of_nearly_all_samples():
    x = torch.rand(1000, *SHAPE)
    x[3] = 1e6  # a chain that blew up

    low, high = sample_range(x)

    assert 0 <= low < 0.01
    assert 0.99 < high <= 1


def test_a_prior_that_tells_no_range_has_no_outliers():
    gaussian = Prior(random_gaussian(SHAPE, 2), None, {"lap": 0})

    assert not gaussian.outlying(torch.full((2, *SHAPE), 1e30)).any()


def test_posteriors_warn_in_the_units_of_the_data():
    some = simulate(MASK, SHAPE, 4, torch.float32)
    draw = {"operator": some, "sigma_y": 2.0, "n": 3}
    y = 100 + torch.zeros(4, *SHAPE)

    with pytest.warns(OutlierWarning, match=r"12 of 12 .* far outside of 100 to 100,") as caught:
        PriorDenoiser(prior(NARROW, {"offset": 100.0, "scale": 20.0})).posterior(y, **draw)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PriorDenoiser(prior(WIDE, {"offset": 100.0, "scale": 20.0})).posterior(y, **draw)


@pytest.fixture
def observations(tmp_path):
    observed, _ = observe(random_gaussian(SHAPE, 2, torch.float32), MASK, 10, 0.1)
    path = tmp_path / "observations.h5"
    save_observations(path, {"test": observed}, "mask", {})
    return path


@pytest.mark.parametrize(("told", "each"), [(NARROW, 3), (WIDE, 0)])
def test_files_of_posteriors_count_them(tmp_path, observations, told, each):
    output = tmp_path / "posterior.h5"

    with Observations(observations) as file, warnings.catch_warnings():
        warnings.simplefilter("error")  # they are told once, by who asked
        count = write_posteriors(output, PriorDenoiser(prior(told)), file, 3, batch=6)

    assert count == 10 * each
    with Reader(output) as file:
        assert file.attribute("outliers") == count
        np.testing.assert_array_equal(file.read("test/outliers"), np.full(10, each))


@pytest.mark.parametrize(("told", "fraction"), [(NARROW, 1.0), (WIDE, 0.0)])
def test_evaluations_have_their_fraction(observations, told, fraction):
    settings = {
        **{"samples": 4, "block": 4, "sampler": {"name": "ddim", "steps": 2}},
        **{"metrics": ["residual"], "test_observations": 4, "posterior_samples": 2},
    }
    with Observations(observations) as file:
        sampler = PosteriorSampler(DDIM(steps=2))
        rows, _ = evaluate(Evaluation(prior(told), file, sampler, settings, {}, {}, Job()), {})

    (value,) = (row["value"] for row in rows if row["metric"] == "residual_outliers")
    assert value == fraction
