"""Samplers on Gaussians, where every moment is known, and the E-step's blocks and shards."""

import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
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
    simulate,
)
from tqdm import tqdm

from diem.data.observations import Observations, save_observations
from diem.diffusion.covariances import CARD_ERROR, COVARIANCES
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers import SAMPLERS, Sampler, noise_levels, sample_prior
from diem.diffusion.samplers.ddim import DDIM
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.samplers.pc import PC
from diem.em.blocks import Shard, blocks
from diem.em.e_step import EStep, e_step
from diem.em.laps import restart_level
from diem.em.restart import Restart, replace_contradicting
from diem.em.samples import gather_samples
from diem.errors import DiemError
from diem.files.hdf5 import SCHEMA_VERSION, Rows
from diem.jobs.job import Job
from diem.jobs.results import remove_pieces
from diem.jobs.resume import Pieces

VECTOR, IMAGE = (5,), (1, 2, 3)
PROJECTION = {"name": "projection", "rows": 2}
MASK = {"name": "mask", "missing": 0.5}


def diffusion(gaussian, sigma_min=1e-3, sigma_max=1e1):
    """Returns a Gaussian as a prior with a denoiser, which is exact."""
    return Prior(gaussian, gaussian.denoiser(VESchedule(sigma_min, sigma_max)), {})


# Noise levels


@pytest.mark.parametrize("spacing", ["log_linear", "karras"])
@pytest.mark.parametrize("steps", [1, 2, 16, 256])
def test_noise_levels_descend_from_the_highest_to_the_lowest(spacing, steps):
    levels = noise_levels(spacing, steps, 1e-3, 1e2)

    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float64
    assert levels[0].item() == pytest.approx(1e2, rel=1e-12)
    assert levels[-1].item() == pytest.approx(1e-3, rel=1e-9)
    assert (levels.diff() < 0).all()


def test_log_linear_levels_have_one_ratio():
    levels = noise_levels("log_linear", 10, 1e-2, 1e1)

    torch.testing.assert_close(levels[1:] / levels[:-1], torch.full((10,), 1e-3**0.1).double())


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_levels_by_their_formula(rho):
    levels = noise_levels("karras", 5, 0.002, 80.0, rho)

    for i, level in enumerate(levels.tolist()):
        high, low = 80 ** (1 / rho), 0.002 ** (1 / rho)
        assert level == pytest.approx((high + i / 5 * (low - high)) ** rho, rel=1e-9)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="log_linear"):
        noise_levels("linear", 5, 0.1, 1.0)


# Steps


@pytest.mark.parametrize(("name", "theirs"), [("ddpm", DDPMSampler), ("ddim", DDIMSampler)])
@pytest.mark.parametrize("steps", [1, 7])
def test_the_steps_are_those_of_azula(name, theirs, steps):
    # The log-linear grid is azula's, uniform in t; then ours denoises once.
    denoiser = diffusion(random_gaussian(IMAGE, 2)).denoiser
    x_1 = 10 * torch.randn(4, *IMAGE, dtype=torch.float64)

    x = SAMPLERS.find(name)(steps=steps)(denoiser, x_1, 10.0, torch.Generator().manual_seed(3))

    torch.manual_seed(3)
    reference = theirs(denoiser, steps=steps, silent=True, dtype=torch.float64)(x_1)
    reference = denoiser(reference, torch.zeros(1, dtype=torch.float64)).mean
    torch.testing.assert_close(x, reference, rtol=1e-9, atol=1e-9)


def test_the_corrections_by_hand():
    # One step from sigma 10 to sigma 1, a correction of size 0.3 there, and the last denoising.
    denoiser = diffusion(random_gaussian(VECTOR, 2), 1.0, 10.0).denoiser
    x_1 = 10 * torch.randn(4, *VECTOR, dtype=torch.float64)

    sampler = PC(steps=1, corrections=2, delta=0.3)
    x = sampler(denoiser, x_1, 10.0, torch.Generator().manual_seed(3))

    def d(x, t):
        return denoiser(x, torch.tensor([t], dtype=torch.float64)).mean

    generator = torch.Generator().manual_seed(3)
    expected = d(x_1, 1.0) + 0.1 * (x_1 - d(x_1, 1.0))
    for _ in range(2):
        epsilon = torch.randn(x_1.shape, generator=generator, dtype=torch.float64)
        expected = expected - 0.3 * (expected - d(expected, 0.0)) + math.sqrt(0.6) * epsilon
    torch.testing.assert_close(x, d(expected, 0.0))


class Counted(torch.nn.Module):
    """A denoiser that counts its evaluations."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, 0

    def forward(self, *args):
        self.calls += 1
        return self.denoiser(*args)


@pytest.mark.parametrize("spec", [*SAMPLERS.names, {"name": "pc", "corrections": 3}], ids=str)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("covariance", COVARIANCES.names)
def test_the_cost_is_what_is_told(spec, steps, covariance, monkeypatch):
    prior = diffusion(random_gaussian(VECTOR, 2, torch.float32))
    prior.denoiser = Counted(prior.denoiser)
    prior.card[CARD_ERROR] = {"sigma": [1.0], "error": [0.5]}
    products, original = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: (products.append(1), original(*a, **k))[1]
    )
    reverse = SAMPLERS.parse(spec).model_copy(update={"steps": steps})
    sampler = PosteriorSampler(reverse, COVARIANCES.parse(covariance), iterations=3)
    operator, done = simulate(PROJECTION, VECTOR, 3, torch.float32), []

    sampler(
        prior,
        operator,
        torch.zeros(3, 2),
        0.1,
        torch.Generator(),
        step_done=lambda: done.append(1),
    )

    assert prior.denoiser.calls == sampler.sampler.evaluations
    assert len(products) == sampler.products
    assert len(done) == steps


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_samples_depend_on_the_stream_alone(name):
    prior = diffusion(random_gaussian(VECTOR, 2, torch.float32))

    def sample(seed):
        torch.rand(1)  # nothing depends on the global generator
        return sample_prior(
            prior, 4, SAMPLERS.find(name)(steps=5), torch.Generator().manual_seed(seed)
        )

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


# Gaussians: the moments of all that a sampler does are known


def chain(sampler, mean, covariance, start, sigma_min, sigma_max):
    """Returns the mean and covariance of a sampler's results for ``x ~ N(mean, covariance)``.

    The denoiser is affine, ``d = m + K (x_t - m)`` with ``K = C (C + sigma^2 I)^-1``, and so is
    every step: the moments are carried along without any error but that of the grid.
    """
    eye = torch.eye(len(mean), dtype=torch.float64)
    levels = noise_levels(sampler.spacing, sampler.steps, sigma_min, sigma_max)

    def gain(sigma):
        return torch.linalg.solve(covariance + sigma**2 * eye, covariance).T

    m, c = start - mean, sigma_max**2 * eye
    for sigma, lower in itertools.pairwise(levels):
        ratio = lower / sigma
        size = 1 - ratio**2 if sampler.name == "ddpm" else 1 - ratio
        step = eye - size * (eye - gain(sigma))
        m, c = step @ m, step @ c @ step.T
        if sampler.name == "ddpm":
            c = c + lower**2 * size * eye
        for _ in range(sampler.corrections if sampler.name == "pc" else 0):
            step = eye - sampler.delta * (eye - gain(lower))
            m, c = step @ m, step @ c @ step.T + 2 * sampler.delta * lower**2 * eye
    last = gain(levels[-1])
    return mean + last @ m, last @ c @ last.T


SAMPLERS_TESTED = [
    pytest.param(DDPM(steps=256), id="ddpm"),
    pytest.param(DDPM(steps=128, spacing="karras"), id="ddpm-karras"),
    pytest.param(DDIM(steps=256), id="ddim"),
    pytest.param(DDIM(steps=64, spacing="karras"), id="ddim-karras"),
    pytest.param(PC(steps=256, corrections=1, delta=0.1), id="pc"),
    pytest.param(PC(steps=64, spacing="karras", corrections=2, delta=0.2), id="pc-karras"),
]


def test_the_variance_that_the_ddpm_loses_is_the_step_in_log_sigma():
    # A step's noise lacks the variance tau^2 V, and what is lost at sigma reaches the end times
    # (C / (C + sigma^2))^2. With tau = 2 h and h = log(sigma_max / sigma_min) / steps, the sum is
    # h C to first order, whatever C: the allowance of the tests below.
    covariance = torch.diag(torch.tensor([0.05, 0.3, 1.0, 2.0], dtype=torch.float64))
    zero = torch.zeros(4, dtype=torch.float64)
    for steps in (256, 1024):
        h = math.log(1e6) / steps
        _, c = chain(DDPM(steps=steps), zero, covariance, zero, 1e-4, 1e2)
        lost = 1 - c.diagonal() / covariance.diagonal()
        assert (lost / h - 1).abs().max() <= 2 * h


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS_TESTED)
def test_samplers_give_the_prior(sampler):
    gaussian = random_gaussian(IMAGE, 3)
    prior = diffusion(gaussian.to(torch.float32))

    x = sample_prior(prior, 10_000, sampler, torch.Generator().manual_seed(0))

    mean, covariance = gaussian.mean.flatten(), dense(gaussian)
    assert_moments(x, *chain(sampler, mean, covariance, mean, 1e-3, 10.0))
    # The grid's own error: h for the log-linear DDPM, see above; the other grids and samplers err
    # by less than 0.1 here, most of it from the corrections, whose size is 0.1 or 0.2.
    h = math.log(1e4) / sampler.steps
    exact = sampler.name == "ddpm" and sampler.spacing == "log_linear"
    assert_moments(x, mean, covariance, allowance=1.1 * h if exact else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ["tweedie", "cov_x"])
@pytest.mark.parametrize("sigma_y", [0.1, 0.01])
@pytest.mark.parametrize(
    ("spec", "shape", "iterations"),
    [
        pytest.param(PROJECTION, VECTOR, 4, id="projection"),
        pytest.param(MASK, IMAGE, 6, id="mask"),
    ],
)
def test_posterior_samples_of_a_diffusion_are_exact(spec, shape, iterations, sigma_y, covariance):
    gaussian, count = random_gaussian(shape, 3), 10_000
    operator = simulate(spec, shape, 1, torch.float32, seed=2)
    y = operator.forward(gaussian.sample(1, torch.Generator().manual_seed(3)).float())
    sampler = PosteriorSampler(DDPM(steps=256), COVARIANCES.parse(covariance), iterations)

    x = sampler(
        diffusion(gaussian.to(torch.float32)),
        repeated(operator, count),
        y.expand(count, *y.shape[1:]),
        sigma_y,
        torch.Generator().manual_seed(0),
    )

    mean, spread = analytic_posterior(gaussian, matrices(operator)[0], y[0], sigma_y)
    # Against the moments that the steps have in exact arithmetic: sampling error alone.
    start = gaussian.mean.flatten()
    assert_moments(x, *chain(sampler.sampler, mean, spread, start, 1e-3, 10.0))
    # Against the posterior: 256 steps lose the share h = 0.036 of the variance (see above), and
    # the last denoising the share sigma_0^2 / (smallest eigenvalue).
    lost = math.log(1e4) / 256 + 1e-6 / torch.linalg.eigvalsh(spread).min()
    assert_moments(x, mean, spread, allowance=1.1 * lost)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "pc"])
def test_posterior_samples_by_the_other_samplers(name):
    gaussian, count = random_gaussian(VECTOR, 3), 10_000
    operator = simulate(PROJECTION, VECTOR, 1, torch.float32, seed=2)
    y = operator.forward(gaussian.sample(1, torch.Generator().manual_seed(3)).float())
    sampler = PosteriorSampler(SAMPLERS.find(name)(steps=96), iterations=4)
    sigma_y = torch.tensor([0.05, 0.5])

    x = sampler(
        diffusion(gaussian.to(torch.float32)),
        repeated(operator, count),
        y.expand(count, 2),
        sigma_y,
        torch.Generator().manual_seed(0),
    )

    mean, spread = analytic_posterior(gaussian, matrices(operator)[0], y[0], sigma_y)
    start = gaussian.mean.flatten()
    assert_moments(x, *chain(sampler.sampler, mean, spread, start, 1e-3, 10.0))
    assert_moments(x, mean, spread, allowance=0.1)


def test_a_prior_without_denoiser_is_sampled_exactly():
    gaussian = random_gaussian(VECTOR, 3)
    prior = Prior(gaussian.to(torch.float32), None, {})
    sampler = PosteriorSampler(DDPM(steps=1))
    operator = repeated(simulate(PROJECTION, VECTOR, 1, torch.float32, seed=2), 10_000)
    y = torch.tensor([[0.5, -1.0]])

    x = sample_prior(prior, 10_000, DDPM(steps=1), torch.Generator().manual_seed(0))
    z = sampler(prior, operator, y.expand(10_000, 2), 0.1, torch.Generator().manual_seed(0))

    assert_moments(x, gaussian.mean, dense(gaussian))
    assert_moments(z, *analytic_posterior(gaussian, matrices(operator[:1])[0], y[0], 0.1))


@pytest.mark.slow
def test_a_restart_keeps_the_posterior():
    # A sample of the posterior, noised and denoised again, is one again. The chain from sigma 1
    # has the right start: only the step in log sigma is lost.
    gaussian, count = random_gaussian(VECTOR, 3), 10_000
    single, generator = gaussian.to(torch.float32), torch.Generator().manual_seed(0)
    operator = repeated(simulate(PROJECTION, VECTOR, 1, torch.float32, seed=2), count)
    y = torch.tensor([[0.5, -1.0]]).expand(count, 2)
    start = single.sample_posterior(operator, y, 0.1, generator)
    sampler = PosteriorSampler(DDPM(steps=128), iterations=4)

    x = sampler(diffusion(single), operator, y, 0.1, generator, start=start, sigma_start=1.0)

    lost = math.log(1e3) / 128 + 1e-6 / 0.01
    posterior = analytic_posterior(gaussian, matrices(operator[:1])[0], y[0], 0.1)
    assert_moments(x, *posterior, allowance=1.1 * lost)


def test_samples_that_contradict_their_observation_are_replaced():
    gaussian = random_gaussian(VECTOR, 3, torch.float32)
    observed, _ = observe(gaussian, PROJECTION, 6, 0.1, 4)
    operator, y = observed.operator, observed.y
    prior, generator = Prior(gaussian, None, {}), torch.Generator().manual_seed(0)
    x = gaussian.sample_posterior(operator, y, 0.1, generator)
    far = x.clone()
    far[[1, 4]] += operator.adjoint(torch.full_like(y, 5.0))[[1, 4]]

    kept = replace_contradicting(x, prior, operator, y, 0.1, 5.0, generator)
    mended = replace_contradicting(far, prior, operator, y, 0.1, 5.0, generator)

    assert torch.equal(kept, x)
    assert torch.equal(mended[[0, 2, 3, 5]], x[[0, 2, 3, 5]])
    assert ((y - operator.forward(mended)) / 0.1).abs().max() < 5
    assert not torch.isclose(mended[[1, 4]], x[[1, 4]]).any()


def test_only_what_is_observed_can_contradict():
    gaussian = random_gaussian((6,), 3, torch.float32)
    operator = simulate({"name": "mask", "missing": 0.5}, (6,), 8, torch.float32, seed=1)
    generator = torch.Generator().manual_seed(0)
    x = gaussian.sample(8, generator)
    y = torch.where(operator.observed(), x, 100.0)

    kept = replace_contradicting(x, Prior(gaussian, None, {}), operator, y, 0.1, 1.0, generator)

    assert torch.equal(kept, x)


# The keys of the config


def test_restart_levels():
    assert restart_level(None, 5) is None
    assert restart_level((4.0, 1.0), 1) is None
    assert restart_level((4.0, 1.0), 2) is None
    levels = [restart_level((4.0, 1.0), lap) for lap in range(3, 10)]
    np.testing.assert_allclose(levels, [4, 8**0.5, 2, 2**0.5, 1, 1, 1], rtol=1e-12)
    assert restart_level([2, 2], 5) == 2


def test_from_config_takes_what_shapes_a_sample():
    entry = {
        "sampler": {"name": "pc", "steps": 9, "spacing": "karras", "corrections": 2, "delta": 0.2},
        "covariance": "identity",
        "iterations": 3,
        "limit": 1.5,
        "restart": None,
        "block": 7,
        "repeats": 2,
    }

    sampler = PosteriorSampler.from_config(entry)

    reverse = PC(steps=9, spacing="karras", corrections=2, delta=0.2)
    assert sampler == PosteriorSampler(reverse, COVARIANCES.parse("identity"), 3, 1.5)


@pytest.mark.parametrize("size", [1, 3, 5, 23, 100])
def test_blocks_hold_every_row_once(size):
    counts = {"train": 23, "validation": 9}

    some = blocks(counts, size)

    for split, count in counts.items():
        rows = [np.arange(count)[block.rows] for block in some if block.split == split]
        assert np.array_equal(np.concatenate(rows), np.arange(count))
        assert all(len(r) == size for r in rows[:-1])
        assert 1 <= len(rows[-1]) <= size


# The E-step

COUNTS = {"train": 23, "validation": 9, "test": 3}
SAMPLER = PosteriorSampler(DDPM(steps=3))


def write(path, index=None):
    """Writes observations, with an index of their own if asked for."""
    splits = {}
    for seed, (split, count) in enumerate(COUNTS.items()):
        observed, _ = observe(random_gaussian(VECTOR, 2), PROJECTION, count, 0.1, seed)
        if index is not None:
            observed.index[:] = index(count)
        splits[split] = observed
    save_observations(path, splits, "projection", {"experiment": "test", "seed": 0})
    return path


@pytest.fixture
def run(tmp_path):
    """Returns a function that runs all shards of an E-step in a folder and returns their paths."""
    source = write(tmp_path / "observations.h5")
    prior = diffusion(random_gaussian(VECTOR, 2, torch.float32), 1e-2)

    def run(
        name="run", shards=1, source=source, sampler=SAMPLER, prior=prior, fingerprint="", **options
    ):
        shaping = ("repeats", "drop_last", "storage")
        shape = {key: options.pop(key) for key in shaping if key in options}
        settings = EStep(sampler, options.pop("block", 5), **shape)
        lap, restart = options.pop("lap", 1), options.pop("restart", None)
        paths = [tmp_path / name / f"samples_{i}-of-{shards}.h5" for i in range(1, shards + 1)]
        with Observations(source) as observations:
            for i, path in enumerate(paths, 1):
                with Pieces(path, fingerprint, 0.0) as pieces:
                    job = Job(keep=pieces, **options)
                    shard = Shard(i, shards)
                    e_step(path, prior, observations, settings, lap, job, shard, restart)
                remove_pieces(path)
        return paths

    return run


def samples(paths):
    """Returns all samples of each split, and the indices of their observations."""
    return {
        split: [Rows(paths, f"{split}/{name}", s)[:] for name, s in (("x", VECTOR), ("index", ()))]
        for split in ("train", "validation")
    }


def same(one, other):
    one, other = samples(one), samples(other)
    return all(np.array_equal(a, b) for s in one for a, b in zip(one[s], other[s], strict=True))


class Interrupted(PosteriorSampler):
    """A sampler that is stopped after some blocks."""

    left: list[int]

    def __call__(self, *args, **kwargs):
        if self.left[0] == 0:
            raise KeyboardInterrupt
        self.left[0] -= 1
        return super().__call__(*args, **kwargs)


def interrupted(blocks):
    sampler = Interrupted(SAMPLER.sampler)
    object.__setattr__(sampler, "left", [blocks])
    return sampler


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 2])
def test_every_observation_is_sampled(run, repeats):
    for split, (x, index) in samples(run(repeats=repeats)).items():
        assert x.shape == (COUNTS[split] * repeats, *VECTOR)
        assert x.dtype == np.float32
        assert np.array_equal(index, np.tile(np.arange(COUNTS[split]), repeats))
        assert len(np.unique(x, axis=0)) == len(x)  # no stream is used twice


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("shards", [2, 3, 7, 20])
def test_the_number_of_shards_changes_no_number(run, shards, repeats):
    # 7 blocks, or 14 with two repeats: 20 shards are more than there are blocks.
    paths = run("sharded", shards, repeats=repeats)

    assert all(path.is_file() for path in paths)
    assert same(paths, run("one", repeats=repeats))


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 5, 23, 1000])
def test_any_block_size_samples_all(run, block):
    for split, (x, index) in samples(run(block=block)).items():
        assert np.array_equal(index, np.arange(COUNTS[split]))
        assert np.isfinite(x).all()


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_the_last_block_can_be_dropped(run, shards):
    whole = samples(run("whole", block=5, repeats=2))
    for split, (x, index) in samples(
        run("dropped", shards, block=5, repeats=2, drop_last=True)
    ).items():
        count = COUNTS[split] // 5 * 5
        assert np.array_equal(index, np.tile(np.arange(count), 2))
        assert np.array_equal(x[:5], whole[split][0][:5]) or split == "validation"


@pytest.mark.slow
def test_seeds_and_laps_have_their_own_streams(run):
    one = run("one")

    assert same(one, run("again"))
    assert not same(one, run("seed", seed=1))
    assert not same(one, run("lap", lap=2))


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_an_interrupted_shard_goes_on_where_it_was(run, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        run("cut", sampler=interrupted(after), fingerprint="f")
    kept = sorted(Path(tmp_path / "cut").glob(".*/*/*"))
    assert not (tmp_path / "cut" / "samples_1-of-1.h5").exists()
    assert len(kept) == after

    # The second run has budget for the remaining blocks only: none is drawn twice.
    paths = run("cut", sampler=interrupted(7 - after), fingerprint="f")

    assert same(paths, run("whole"))
    assert sorted((tmp_path / "cut").iterdir()) == paths


@pytest.mark.slow
def test_a_shard_of_many_is_interrupted_alone(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("cut", 3, sampler=interrupted(4), repeats=2, fingerprint="f")

    paths = run("cut", 3, repeats=2, fingerprint="f")

    assert same(paths, run("whole", repeats=2))
    assert sorted((tmp_path / "cut").iterdir()) == paths


@pytest.mark.slow
def test_blocks_of_another_fingerprint_are_not_used(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("cut", sampler=interrupted(4), seed=1, fingerprint="of seed 1")

    paths = run("cut", seed=0, fingerprint="of seed 0")

    assert same(paths, run("whole", seed=0))
    assert sorted((tmp_path / "cut").iterdir()) == paths


def test_an_attempt_that_fails_leaves_the_old_result(run, tmp_path):
    paths = run("one")
    before = paths[0].read_bytes()

    with pytest.raises(KeyboardInterrupt):
        run("one", sampler=interrupted(3), seed=1, fingerprint="f")

    assert paths[0].read_bytes() == before


def test_the_card_of_a_shard(run):
    sampler = PosteriorSampler(PC(steps=3, corrections=2), iterations=2)
    paths = run(shards=2, sampler=sampler, lap=4, seed=7)

    card = attributes(paths[1])
    assert card.pop("seconds") >= 0
    assert card.pop("diem_version")
    assert card.pop("schema_version") == SCHEMA_VERSION
    assert card == {
        "lap": 4,
        "seed": 7,
        "sampler": "pc",
        "steps": 3,
        "covariance": "tweedie",
        "denoiser_evaluations": 10,
        "precision": "float32",
        "channels_last": False,
        "compile": False,
        "vector_jacobian_products": 20,
        "sigma_start": "none",
        "repeats": 1,
        "storage": "float32",
    }


def test_a_gaussian_prior_is_sampled_exactly_in_the_e_step(run):
    prior = Prior(random_gaussian(VECTOR, 2, torch.float32), None, {})

    one, three = run("one", prior=prior), run("three", 3, prior=prior)

    assert same(one, three)
    card = attributes(one[0])
    assert card["sampler"] == card["covariance"] == "exact"
    assert card["denoiser_evaluations"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3, 20])
def test_progress_counts_the_samples(run, shards):
    totals = []

    class Bar(tqdm):
        def reset(self, total=None):
            totals.append(total)
            super().reset(total)

    bar = Bar(file=io.StringIO())
    run(shards=shards, repeats=2, progress=bar)

    assert sum(totals) == 2 * (COUNTS["train"] + COUNTS["validation"])
    assert bar.n == totals[-1]


def test_samples_that_are_not_finite_are_refused(run, tmp_path):
    gaussian = random_gaussian(VECTOR, 2, torch.float32)
    broken = Gaussian(gaussian.mean, gaussian.noise, torch.full_like(gaussian.factors, torch.nan))

    with pytest.raises(DiemError, match="not finite") as error:
        run("broken", prior=diffusion(broken, 1e-2), lap=3)

    assert str(tmp_path / "broken" / "samples_1-of-1.h5") in str(error.value)
    assert "lap 3" in str(error.value)
    assert str(error.value).endswith(".")
    assert not (tmp_path / "broken" / "samples_1-of-1.h5").exists()


# Restarts


class Watched(PosteriorSampler):
    """A sampler that keeps what it was started with and what it drew."""

    seen: list

    def __call__(self, prior, operator, y, *args, **kwargs):
        x = super().__call__(prior, operator, y, *args, **kwargs)
        self.seen.append({"y": y, "x": x, **kwargs})
        return x


def watched():
    sampler = Watched(SAMPLER.sampler)
    object.__setattr__(sampler, "seen", [])
    return sampler


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_samples_in_half_precision_are_the_rounded_ones(run, cache_mb):
    (exact,), (half,) = run("exact", lap=2), run("half", lap=2, storage="float16")

    with Rows([exact], "train/x", cache_mb=cache_mb) as x, Rows([half], "train/x", VECTOR, 0) as y:
        assert y[:].dtype == np.float32
        assert np.array_equal(y[:], x[:].astype(np.float16).astype(np.float32))
        assert not np.array_equal(y[:], x[:])
    assert attributes(half)["storage"] == "float16"
    # A chain goes on from what was stored.
    paths = run("after", 1, restart=Restart([half], 0.5), lap=3)
    assert not same(paths, run("other", 1, restart=Restart([exact], 0.5), lap=3))


def test_samples_that_half_precision_cannot_hold_are_told(run):
    class Far(PosteriorSampler):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) * 1e6

    with pytest.raises(DiemError, match=r"of lap 2 are too large for e_step.storage float16: set"):
        run("far", sampler=Far(SAMPLER.sampler), lap=2, storage="float16")
    run("far", sampler=Far(SAMPLER.sampler), lap=2)


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_restart_does_not_depend_on_shards(run, repeats):
    options = {"repeats": repeats, "lap": 3}
    before = [run(f"before_{n}", n, repeats=repeats, lap=2) for n in (1, 3)]

    one = run("one", 1, restart=Restart(before[0], 0.5), **options)

    assert same(one, run("three", 3, restart=Restart(before[1], 0.5), **options))
    assert not same(one, run("level", 1, restart=Restart(before[0], 0.7), **options))
    assert not same(one, run("noise", 1, repeats=repeats, lap=3))
    assert attributes(one[0])["sigma_start"] == 0.5


@pytest.mark.slow
def test_more_chains_than_before_start_from_the_same_samples(run):
    before = run("before", 1, repeats=2, lap=2)
    few, many = watched(), watched()

    run("few", 1, sampler=few, restart=Restart(before, 0.5), repeats=2, lap=3)
    paths = run("many", 1, sampler=many, restart=Restart(before, 0.5), repeats=4, lap=3)

    assert len(many.seen) == 2 * len(few.seen)
    again = [*few.seen, *few.seen]  # the third sample starts where the first did
    for chain, other in zip(many.seen, again, strict=True):
        assert torch.equal(chain["start"], other["start"])
        assert torch.equal(chain["y"], other["y"])
    for x, _ in samples(paths).values():
        assert len(np.unique(x, axis=0)) == len(x)  # and ends elsewhere


@pytest.mark.parametrize(("drawn", "repeats"), [(2, 3), (2, 1)])
def test_chains_that_do_not_divide_among_the_samples_before_are_told(run, drawn, repeats):
    before = run("before", 1, repeats=drawn, lap=2)

    with pytest.raises(DiemError, match=rf"46 samples of 'train', from which {repeats} chains of"):
        run("after", 1, restart=Restart(before, 0.5), repeats=repeats, lap=3)


@pytest.mark.slow
def test_a_restart_replaces_what_contradicts(run):
    before = [run(f"before_{n}", n, lap=2) for n in (1, 3)]

    one = run("one", 1, restart=Restart(before[0], 0.5, 1e-3), lap=3)

    assert same(one, run("three", 3, restart=Restart(before[1], 0.5, 1e-3), lap=3))
    kept = run("kept", 1, restart=Restart(before[0], 0.5), lap=3)
    assert not same(one, kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    "index",
    [
        pytest.param(np.arange, id="ordered"),
        pytest.param(lambda n: 10 * np.arange(n) + 3, id="gaps"),
        pytest.param(lambda n: np.arange(n)[::-1], id="unordered"),
        pytest.param(lambda n: np.arange(n) // 2, id="repeated"),
    ],
)
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_restart_goes_on_from_the_same_observation(run, tmp_path, index, repeats):
    # `index` tells which sample of the data set an observation is of: in any order, and more than
    # once if a sample was observed more than once.
    source = write(tmp_path / "other.h5", index)
    first, second = watched(), watched()

    before = run("before", 2, source, first, repeats=repeats, lap=2)
    run("after", 1, source, second, restart=Restart(before, 0.5), repeats=repeats, lap=3)

    assert len(first.seen) == len(second.seen) == 7 * repeats
    for a, b in zip(first.seen, second.seen, strict=True):
        assert torch.equal(a["y"], b["y"])
        assert torch.equal(b["start"], a["x"])
        assert b["sigma_start"] == 0.5


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("shards", [2, 20])
def test_gathered_shards_are_the_samples_of_one_job(run, tmp_path, shards, storage):
    parts = run("sharded", shards, repeats=2, storage=storage)
    whole = tmp_path / "samples.h5"
    gather_samples(parts, whole)

    (one,) = run("one", repeats=2, storage=storage)
    assert same([whole], [one])
    with Rows([whole], "train/x") as x, Rows([whole], "train/index") as index:
        assert (x.stored, index.stored) == (np.dtype(storage), np.int64)
    card, other = attributes(whole), attributes(one)
    seconds = sum(attributes(part)["seconds"] for part in parts)
    assert card.pop("seconds") == pytest.approx(seconds)
    other.pop("seconds")
    assert card == other


@pytest.mark.parametrize("step", [lambda x: None, lambda x: x[:, :2]])
def test_a_step_of_ones_own_that_is_no_sample_is_told(step):
    class Own(Sampler):
        name = "own"

        def step(self, denoise, x_t, t, s, noise):
            return step(x_t)

    prior = diffusion(random_gaussian((5,), 2).to(torch.float32))
    with pytest.raises(DiemError, match=r"sampler 'own' does not return .* x_t, \(4, 5\)"):
        sample_prior(prior, 4, Own(steps=2), torch.Generator())


@pytest.mark.parametrize("kind", [SAMPLERS, COVARIANCES], ids=lambda kind: kind.key)
def test_a_component_of_ones_own_without_a_name_is_refused(kind):
    class Own(kind.base):
        def step(self, denoise, x_t, t, s, noise):
            return x_t

    with pytest.raises(DiemError, match=f"{kind.key} 'own:Own' does not define name"):
        kind.accepted(Own, "own:Own")
