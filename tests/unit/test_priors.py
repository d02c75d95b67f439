"""Loaded priors: azula denoisers that draw exact moments, in azula's hands too, and their files."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from azula.guidance import DPSSampler, MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VESchedule
from azula.sample import DDIMSampler, DDPMSampler
from helpers import (
    analytic_posterior,
    assert_moments,
    attributes,
    dense,
    matrices,
    observe,
    random_gaussian,
    repeated,
)

import diem
from diem import operators
from diem.data.observations import Observations, Observed, save_observations
from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.outside import GUARD, outside_e_step
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers.ddim import DDIM
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.samplers.pc import PC
from diem.errors import DiemError
from diem.inference.prior_denoiser import PriorDenoiser
from diem.inference.sample_files import write_posteriors, write_samples
from diem.jobs.job import Job
from diem.jobs.results import pieces_folder
from diem.jobs.resume import Pieces

SHAPE = (1, 2, 3)
SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}
NETWORK = {"name": "mlp", "hidden": [8, 8], "embedding": 4}
MASK = {"name": "mask", "missing": 0.5}
PROJECTION = {"name": "projection", "rows": 3}
E_STEP = {"sampler": {"name": "ddim", "steps": 3, "spacing": "karras"}, "iterations": 2}


def gaussian():
    return random_gaussian(SHAPE, 2, torch.float32)


def exact():
    """Returns the Gaussian prior, of which all is known."""
    return PriorDenoiser(Prior(gaussian(), None, {"lap": 0}))


def diffusion():
    """Returns the same prior as one with a denoiser, which happens to be exact."""
    denoiser = gaussian().denoiser(VESchedule(**SCHEDULE))
    return PriorDenoiser(Prior(gaussian(), denoiser, {"lap": 1}))


@pytest.fixture
def path(tmp_path):
    """Writes a network's prior, as a lap does."""
    card = {"network": NETWORK, "schedule": SCHEDULE, "e_step": E_STEP, "lap": 3}
    denoiser = build_denoiser(NETWORK, SCHEDULE, SHAPE, seed=0)
    Prior(gaussian(), denoiser, card).save(tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def problem(count=4, sigma_y=0.1):
    observed, _ = observe(gaussian(), MASK, count, sigma_y)
    return observed


def refused(call, *parts):
    with pytest.raises(DiemError) as error:
        call()
    message = str(error.value)
    assert message.endswith(".")
    assert all(part in message for part in parts), message


# Loading


@pytest.mark.slow
def test_the_package_is_imported_without_torch():
    code = "import sys, diem; assert 'torch' not in sys.modules; diem.load_prior"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="load_priors"):
        _ = diem.load_priors


def test_a_loaded_prior_is_an_azula_denoiser(path):
    prior = diem.load_prior(path)

    assert prior.event_shape == SHAPE
    assert prior.card["lap"] == 3
    assert torch.equal(prior.mean, gaussian().mean)
    assert not any(p.requires_grad for p in prior.parameters())
    x_t, t = torch.randn(3, *SHAPE), torch.tensor(0.5)
    expected = build_denoiser(NETWORK, SCHEDULE, SHAPE, seed=0)(x_t, t).mean
    assert torch.equal(prior(x_t, t).mean, expected)


def test_a_prior_moves_with_its_moments(path):
    prior = diem.load_prior(path).to(torch.float64)

    assert prior.sample(2).dtype == torch.float64
    assert exact().to("meta").device.type == "meta"


def test_the_denoiser_of_a_gaussian_prior_is_exact():
    prior, t = exact(), torch.tensor(0.4)
    sigma = prior.schedule.sigma(t)
    x_t = torch.randn(5, *SHAPE)

    covariance = dense(gaussian())
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(6))
    expected = prior.mean.flatten() + (x_t - prior.mean).flatten(1) @ gain.T
    torch.testing.assert_close(prior(x_t, t).mean.flatten(1), expected)


# Samples


@pytest.mark.parametrize("make", [exact, diffusion])
def test_samples_have_the_moments_of_the_prior(make):
    x = make().sample(8192, batch=4096, name="ddim", steps=128)

    assert_moments(x, gaussian().mean.flatten(), dense(gaussian()).double(), allowance=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("make", [exact, diffusion])
def test_posterior_samples_have_the_moments_of_the_posterior(make):
    observed = problem(2)
    x = make().posterior(
        observed.y,
        observed.operator,
        observed.sigma_y,
        4096,
        batch=8192,
        sampler={"steps": 64, "spacing": "karras"},
        iterations=3,
    )

    assert x.shape == (2, 4096, *SHAPE)
    for draws, matrix, y in zip(x, matrices(observed.operator), observed.y, strict=True):
        mean, covariance = analytic_posterior(gaussian(), matrix, y, observed.sigma_y)
        assert_moments(draws, mean, covariance, allowance=0.05)


def test_samples_depend_on_the_seed_and_not_on_what_was_drawn_before():
    prior = diffusion()
    torch.randn(3)
    one = prior.sample(5, steps=2, batch=3)

    assert torch.equal(one, prior.sample(5, steps=2, batch=3))
    assert torch.equal(one[:3], prior.sample(3, steps=2, batch=3))
    assert not torch.equal(one, prior.sample(5, steps=2, batch=3, seed=1))
    assert len(one.flatten().unique()) == one.numel()  # batches have streams of their own


def test_each_sample_of_an_observation_is_another():
    observed = problem(3)
    x = exact().posterior(observed.y, observed.operator, observed.sigma_y, 5, batch=4)

    hidden = ~observed.operator.observed()[:, None].expand_as(x)
    assert len(x[hidden].unique()) == hidden.sum()


def test_whole_numbers_with_a_point_are_integers():
    prior, observed = exact(), problem()
    given = observed.y, observed.operator, 0.1
    assert torch.equal(prior.sample(2.0, seed=1.0, batch=2.0), prior.sample(2, seed=1, batch=2))
    expected = prior.posterior(*given, 2, seed=3, batch=4)
    assert torch.equal(prior.posterior(*given, 2.0, seed=3.0, batch=np.int64(4)), expected)


@pytest.mark.parametrize("sigma_y", [1e-18, 1e18])
def test_the_least_and_the_largest_noise_are_taken(sigma_y):
    observed = problem()
    x = exact().posterior(observed.y, observed.operator, sigma_y)
    assert torch.isfinite(x).all()


def test_one_operator_serves_all_observations():
    observed = problem(4)
    shared = observed.operator[torch.tensor([0])]
    y = observed.y * observed.operator.observed()
    alike = repeated(observed.operator, 4)

    one = exact().posterior(y, shared, 0.1, 2, batch=3)
    assert torch.equal(one, exact().posterior(y, alike, 0.1, 2, batch=3))


@pytest.mark.parametrize("shape", [(2,), (2, 1, 1, 1)])
def test_each_observation_has_its_own_noise(shape):
    observed = problem(2)
    sigma_y = torch.tensor([1e-3, 1e3]).reshape(shape)
    operator = repeated(observed.operator, 2)
    y = observed.y[:1].expand(2, *SHAPE)
    x = exact().posterior(y, operator, sigma_y, 256)

    spread = x.std(dim=1)[operator.observed()].reshape(2, -1)
    assert (spread[0] < 0.01).all()
    assert (spread[1] > 0.3).all()


def test_noise_that_could_be_of_observations_or_of_values_is_refused():
    operator = operators.simulate(PROJECTION, SHAPE, 3, np.random.default_rng(0))
    y, sigma_y = torch.zeros(3, 3), torch.tensor([0.1, 1.0, 10.0])

    refused(lambda: exact().posterior(y, operator, sigma_y), "say which by the shape (3, 1)")

    by_value = exact().posterior(y, operator, sigma_y.reshape(1, 3))
    assert torch.equal(by_value, exact().posterior(y, operator, sigma_y.expand(3, 3)))


@pytest.mark.parametrize("sigma_y", [0.1, torch.full((4,), 0.1)])
def test_nan_is_missing(sigma_y):
    observed = problem()
    whole = operators.build("mask", SHAPE, {"mask": torch.ones(1, *SHAPE, dtype=torch.bool)})
    y = torch.where(observed.operator.observed(), observed.y, torch.nan)

    x = exact().posterior(y, whole, sigma_y, 3, seed=5)

    expected = exact().posterior(observed.y, observed.operator, sigma_y, 3, seed=5)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)


GATED = {
    "sampler": {"name": "ddpm", "steps": 8, "spacing": "karras", "spread": "last"},
    "covariance": "tweedie",
    "iterations": 2,
    "limit": 1.5,
}


@pytest.mark.parametrize(
    ("e_step", "changes", "steps", "covariance", "limit"),
    [
        (GATED, {}, 32, "measured", GUARD),
        ({**GATED, "limit": None}, {}, 32, "tweedie", None),
        ({**GATED, "sampler": {"name": "ddim", "steps": 64}}, {}, 64, "measured", GUARD),
        (GATED, {"sampler": {"steps": 4}, "covariance": "cov_x"}, 4, "cov_x", GUARD),
        (GATED, {"limit": 2.0}, 32, "measured", 2.0),
        ({}, {}, 256, "tweedie", None),
    ],
)
def test_outside_of_the_e_step(e_step, changes, steps, covariance, limit):
    error = {"sigma": [1.0], "error": [0.5]}
    prior = PriorDenoiser(Prior(gaussian(), None, {"e_step": e_step, CARD_ERROR: error}))

    draw = prior.posterior_sampler(**changes)
    assert (draw.sampler.steps, draw.covariance.name, draw.limit) == (steps, covariance, limit)
    assert draw == PosteriorSampler.from_config(
        {"sampler": {}, **outside_e_step(e_step, changes)} | {"batch": None}
    )
    assert draw.sampler.adds_spread == (draw.sampler.name == "ddpm" and e_step != {})


def test_a_prior_of_an_earlier_version_draws_as_its_e_step():
    draw = PriorDenoiser(Prior(gaussian(), None, {"e_step": GATED})).posterior_sampler()

    assert (draw.sampler.steps, draw.covariance.name, draw.limit) == (8, "tweedie", 1.5)


def test_the_e_step_that_made_a_prior_is_its_default(path):
    prior = diem.load_prior(path)

    draw = prior.posterior_sampler()
    assert (draw.iterations, draw.sampler.name, draw.sampler.steps) == (2, "ddim", 3)
    changed = prior.posterior_sampler(limit=1.5, sampler={"steps": 7})
    assert (changed.limit, changed.iterations) == (1.5, 2)
    assert (changed.sampler.steps, changed.sampler.spacing) == (7, "karras")
    assert exact().posterior_sampler().sampler.steps == 256


def test_options_of_another_sampler_are_not_inherited():
    # Cards of version 0.1 have the options of pc with every sampler.
    card = {"e_step": {"sampler": {"name": "ddpm", "steps": 3, "corrections": 2, "delta": 0.2}}}
    prior = PriorDenoiser(Prior(gaussian(), None, card))

    assert prior.posterior_sampler().sampler == DDPM(steps=3)
    assert prior.posterior_sampler(sampler="ddim").sampler == DDIM(steps=3)
    changed = prior.posterior_sampler(sampler={"name": "pc", "delta": 0.1}).sampler
    assert changed == PC(steps=3, corrections=2, delta=0.1)
    refused(lambda: prior.posterior_sampler(sampler={"delta": 0.1}), "sampler.delta is unknown")


def test_progress_adds_up_to_the_samples():
    for prior in (exact(), diffusion()):
        seen = []
        prior.sample(5, batch=2, steps=3, progress=seen.append)
        observed = problem(3)
        prior.posterior(
            *(observed.y, observed.operator, observed.sigma_y, 4),
            batch=5,
            sampler={"steps": 3},
            progress=seen.append,
        )
        assert sum(seen) == pytest.approx(5 + 12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_samples_on_a_gpu(path):
    prior = diem.load_prior(path, "cuda")
    observed = problem(3)

    assert prior.sample(4).device.type == "cuda"
    x = prior.posterior(observed.y, observed.operator, observed.sigma_y, 2)
    assert x.shape == (3, 2, *SHAPE)
    assert x.device.type == "cuda"


# In azula's hands


@pytest.mark.parametrize("make", [exact, diffusion])
@pytest.mark.parametrize("sampler", [DDPMSampler, DDIMSampler])
def test_azulas_samplers_draw_from_it(make, sampler):
    prior = make()
    walk = sampler(prior, steps=128, silent=True)

    x = walk(walk.init((4096, *SHAPE), mean=prior.mean))

    assert_moments(x, gaussian().mean.flatten(), dense(gaussian()).double(), allowance=0.06)


@pytest.mark.slow
def test_azulas_mmps_guides_it(path):
    observed = problem(1)
    y = observed.y.expand(2048, *SHAPE)
    operator = repeated(observed.operator, 2048)
    prior = diffusion()

    guided = MMPSDenoiser(
        prior, y, operator.forward, IsotropicCovariance(observed.sigma_y**2), iterations=3
    )
    walk = DDPMSampler(guided, steps=128, silent=True)
    x = walk(walk.init(y.shape, mean=prior.mean))

    matrix = matrices(observed.operator)[0]
    mean, covariance = analytic_posterior(gaussian(), matrix, observed.y[0], observed.sigma_y)
    assert_moments(x, mean, covariance, allowance=0.1)


def test_azulas_dps_guides_a_network(path):
    observed = problem(8)
    prior = diem.load_prior(path)

    walk = DPSSampler(prior, observed.y, observed.operator.forward, steps=16, silent=True)
    start = walk.init(observed.y.shape, mean=prior.mean)
    guided = walk(start)
    free = DDPMSampler(prior, steps=16, silent=True)(start)

    def residual(x):
        return torch.linalg.vector_norm(observed.y - observed.operator.forward(x))

    assert residual(guided) < residual(free)


# Files


@pytest.fixture
def observations(tmp_path):
    observed = problem(7)
    splits = {
        split: Observed(observed.operator[rows], observed.y[rows], observed.sigma_y, index)
        for split, rows, index in (
            ("train", slice(0, 5), np.arange(10, 15)),
            ("test", slice(5, 7), np.arange(2)),
        )
    }
    save_observations(tmp_path / "y.h5", splits, "mask", {})
    with Observations(tmp_path / "y.h5") as file:
        yield file


def test_a_file_of_samples(path, tmp_path):
    prior = diem.load_prior(path)
    write_samples(tmp_path / "x.h5", prior, 5, Job(seed=2), batch=2, steps=4)

    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["x"][:] == prior.sample(5, seed=2, batch=2, steps=4).numpy()).all()
    card = attributes(tmp_path / "x.h5")
    assert json.loads(card["prior"])["network"] == NETWORK
    assert json.loads(card["versions"])["torch"] == torch.__version__
    assert (card["seed"], card["samples"], card["sampler"], card["steps"]) == (2, 5, "ddim", 4)


def test_a_file_of_posteriors(path, tmp_path, observations):
    prior = diem.load_prior(path)
    write_posteriors(tmp_path / "p.h5", prior, observations, 3, Job(seed=1), batch=6)

    some = observations.load("test")
    expected = prior.posterior(
        some.y, some.operator, some.sigma_y, 3, seed=1, batch=6, block=3
    )  # the fourth block, after three of the five training observations
    with h5py.File(tmp_path / "p.h5") as file:
        assert set(file) == {"train", "test"}
        torch.testing.assert_close(torch.from_numpy(file["test/x"][:]), expected)
        assert (file["train/index"][:] == np.arange(10, 15)).all()
        for split, count in (("train", 5), ("test", 2)):
            x, mean, sd = (file[f"{split}/{name}"][:] for name in ("x", "mean", "sd"))
            assert x.shape == (count, 3, *SHAPE)
            np.testing.assert_allclose(mean, x.mean(axis=1), atol=1e-5)
            np.testing.assert_allclose(sd, x.std(axis=1, ddof=1), atol=1e-5)
    assert attributes(tmp_path / "p.h5")["covariance"] == "tweedie"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5", "prior.safetensors", "y.h5"]


@pytest.mark.parametrize("batch", [18, 12], ids=["in the last block", "in every block"])
def test_noise_of_each_value_is_not_taken_for_that_of_each_observation(tmp_path, batch):
    # Blocks of as many observations as there are values.
    fitted = random_gaussian((4,), 1, torch.float32)
    observed, _ = observe(fitted, {"name": "mask", "missing": 0.25}, 10, 0.1)
    sigma_y = torch.tensor([0.1, 0.2, 0.3, 0.4])
    splits = {"test": Observed(observed.operator, observed.y, sigma_y, np.arange(10))}
    save_observations(tmp_path / "y.h5", splits, "mask", {})
    prior = PriorDenoiser(Prior(fitted, None, {"lap": 0}))

    with Observations(tmp_path / "y.h5") as file:
        write_posteriors(tmp_path / "p.h5", prior, file, 3, batch=batch)

    count = batch // 3
    expected = [
        prior.posterior(
            *(observed.y[i : i + count], observed.operator[i : i + count], sigma_y[None], 3),
            **{"batch": batch, "block": number},
        )
        for number, i in enumerate(range(0, 10, count))
    ]
    with h5py.File(tmp_path / "p.h5") as found:
        assert (found["test/x"][:] == torch.cat(expected).numpy()).all()


def test_an_interrupted_file_of_posteriors_goes_on(path, tmp_path, observations):
    prior = diem.load_prior(path)
    write_posteriors(tmp_path / "whole.h5", prior, observations, 2, batch=2)

    class Interrupted(Exception):
        pass

    seen = []

    def interrupt(samples):
        seen.append(samples)
        if sum(seen) >= 7:
            raise Interrupted

    arguments = (tmp_path / "cut.h5", prior, observations, 2)
    with pytest.raises(Interrupted), Pieces(arguments[0], "f", 0.0) as pieces:
        write_posteriors(
            *arguments, Job(keep=pieces, progress=SimpleNamespace(update=interrupt)), batch=2
        )
    assert not (tmp_path / "cut.h5").exists()
    assert len(list(pieces_folder(tmp_path / "cut.h5", "f").iterdir())) == 3
    seen.clear()
    job = Job(keep=Pieces(arguments[0], "f"), progress=SimpleNamespace(update=seen.append))
    write_posteriors(*arguments, job, batch=2)
    assert seen[:3] == [2, 2, 2]  # at once; what is drawn advances by steps

    with h5py.File(tmp_path / "cut.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        for name in ("train/x", "train/sd", "test/mean", "test/index"):
            assert (one[name][:] == other[name][:]).all()


# What is refused


def test_one_sample_has_no_standard_deviation(tmp_path, observations):
    refused(lambda: write_posteriors(tmp_path / "p.h5", exact(), observations, 1), "n is 1")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"n": 0}, ["n is 0"]),
        ({"batch": 0}, ["batch is 0"]),
        ({"batch": 2.5}, ["batch is 2.5"]),
        ({"n": True}, ["n is True"]),
        ({"sampler": None}, ["sampler is None"]),
        ({"sampler": 3}, ["sampler is 3"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"seed": 2**70}, ["seed is 1180591620717411303424"]),
        ({"limit": -1.0}, ["limit is -1"]),
        ({"limit": math.nan}, ["limit is nan"]),
        ({"precision": "float16"}, ["precision is 'float16'"]),
        ({"iteration": 3}, ["e_step.iteration is unknown", "'iterations'"]),
        ({"iterations": 0}, ["iterations is 0"]),
        ({"covariance": "tweedy"}, ["covariance", "'tweedie'"]),
        ({"sampler": {"name": "dpm"}}, ["sampler.name", "'dpm'"]),
        ({"sampler": {"step": 3}}, ["sampler.step is unknown", "'steps'"]),
        ({"sampler": {"steps": 0}}, ["steps is 0"]),
        ({"sampler": {"spacing": "linear"}}, ["sampler.spacing", "'log_linear'"]),
    ],
)
def test_options_that_are_none(options, parts):
    observed = problem()
    options = {"n": 1, **options}
    refused(
        lambda: exact().posterior(observed.y, observed.operator, observed.sigma_y, **options),
        *parts,
    )


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"y": torch.zeros(4, 1, 3, 2)}, ["y has shape (4, 1, 3, 2)", "(1, 2, 3)"]),
        ({"y": torch.zeros(1, 2, 3)}, ["y has shape (1, 2, 3)"]),
        ({"y": torch.zeros(())}, ["y has shape ()"]),
        ({"y": torch.zeros(3, *SHAPE)}, ["3 observations", "4 operators"]),
        ({"y": torch.zeros(0, *SHAPE)}, ["0 observations"]),
        ({"y": torch.full((4, *SHAPE), torch.inf)}, ["y holds infinite values"]),
        ({"sigma_y": 0.0}, ["sigma_y must be positive"]),
        ({"sigma_y": torch.tensor(torch.nan)}, ["sigma_y must be positive"]),
        ({"sigma_y": math.inf}, ["sigma_y must be positive, and from 1e-18 to 1e+18"]),
        ({"sigma_y": 1e20}, ["from 1e-18 to 1e+18"]),
        ({"sigma_y": 1e-30}, ["from 1e-18 to 1e+18"]),
        ({"sigma_y": torch.ones(5)}, ["sigma_y has shape (5,)"]),
        (
            {"operator": operators.simulate(MASK, (1, 3, 3), 4, np.random.default_rng(0))},
            ["operator", "(1, 3, 3)", "(1, 2, 3)"],
        ),
    ],
)
def test_observations_that_do_not_fit(change, parts):
    observed = problem()
    arguments = {"y": observed.y, "operator": observed.operator, "sigma_y": 0.1, **change}
    refused(lambda: exact().posterior(**arguments), *parts)


def test_samples_that_are_not_finite():
    prior = diffusion()
    prior.denoiser.forward = lambda x_t, t: type("", (), {"mean": x_t * torch.nan})
    observed = problem()
    refused(
        lambda: prior.posterior(
            observed.y, observed.operator, 0.1, covariance="zeros", sampler={"steps": 1}
        ),
        "not finite",
    )


# Units


def scaled(make, offset=100.0, scale=20.0):
    """Returns a prior that was learned from data in other units."""
    prior = make().prior
    prior.card["data"] = {"name": "hdf5", "offset": offset, "scale": scale}
    return PriorDenoiser(prior)


@pytest.mark.parametrize("make", [exact, diffusion])
def test_samples_are_in_the_units_of_the_data(make):
    plain, other = make(), scaled(make)

    assert torch.equal(other.mean, 100 + 20 * plain.mean)
    expected = 100 + 20 * plain.sample(6, steps=4)
    torch.testing.assert_close(other.sample(6, steps=4), expected)


@pytest.mark.parametrize("make", [exact, diffusion])
def test_the_denoiser_is_in_the_units_of_the_data(make):
    plain, other = make(), scaled(make)
    t = torch.tensor(0.6)
    assert other.schedule.sigma(t).item() == pytest.approx(20 * plain.schedule.sigma(t).item())

    x_t = torch.randn(4, *SHAPE)
    expected = 100 + 20 * plain(x_t, t).mean
    torch.testing.assert_close(other(100 + 20 * x_t, t).mean, expected)


@pytest.mark.parametrize("make", [exact, diffusion])
def test_posteriors_are_in_the_units_of_the_data(make):
    # In the units of the data y is A (100 + 20 x) plus 20 times the noise.
    gaussian_y, _ = observe(gaussian(), {"name": "projection", "rows": 3}, 4, 0.1)
    operator, steps = gaussian_y.operator, {"sampler": {"steps": 4}}
    expected = 100 + 20 * make().posterior(gaussian_y.y, operator, 0.1, 3, **steps)

    y = operator.forward(torch.full((4, *SHAPE), 100.0)) + 20 * gaussian_y.y
    x = scaled(make).posterior(y, operator, 2.0, 3, **steps)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-2)


def test_observations_that_were_scaled_to_train_on(tmp_path, observations):
    observed = observations.load("test")
    attributes = {"scale": 20.0, "source": "mine.h5"}
    save_observations(tmp_path / "in.h5", {"test": observed}, "mask", attributes)
    with Observations(tmp_path / "in.h5") as file:
        refused(lambda: write_posteriors(tmp_path / "p.h5", scaled(exact), file, 2), "mine.h5")
