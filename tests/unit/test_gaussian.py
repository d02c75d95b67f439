"""The Gaussian prior against its closed form: everything here has one."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from azula.noise import VESchedule
from helpers import (
    SIGMAS,
    analytic_posterior,
    assert_moments,
    dense,
    matrices,
    observe,
    random_gaussian,
    repeated,
    simulate,
)

from diem.diffusion import gaussian as module
from diem.diffusion.gaussian import Gaussian, fit_to_observations, fit_to_samples, moments, ppca
from diem.errors import DiemError
from diem.operators.base import OPERATORS, build

IMAGE, VECTOR = (2, 2, 2), (5,)
MASK = {"name": "mask", "missing": 0.5}
PROJECTION = {"name": "projection", "rows": 2}
DIAGONAL = "diagonal"

# (operator, event shape)
PROBLEMS = [
    pytest.param(MASK, IMAGE, id="mask"),
    pytest.param(PROJECTION, VECTOR, id="projection"),
    pytest.param({"name": "projection", "rows": 3}, IMAGE, id="projection-image"),
]
NOISES = [1e-2, 0.1, 1.0, DIAGONAL]


def noise(sigma_y, shape, dtype=torch.float64):
    """Returns the standard deviations: the number, or one for each value between .05 and 1."""
    if sigma_y != DIAGONAL:
        return torch.tensor(sigma_y, dtype=dtype)
    return torch.linspace(0.05, 1.0, math.prod(shape), dtype=dtype).reshape(shape)


# PPCA


def spectrum(size=6, dtype=torch.float64):
    values = torch.linspace(0.1, 3.0, size, dtype=dtype).square()
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=dtype))
    return q @ torch.diag(values) @ q.T, values, q


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
def test_ppca_is_tipping_and_bishop_in_closed_form(rank, shape):
    covariance, values, q = spectrum()
    mean = torch.randn(shape, dtype=torch.float64)

    fitted = ppca(mean, covariance, rank)

    # The largest eigenvalues stay; the others become their average.
    average = values[: 6 - rank].mean()
    kept = torch.cat((average.expand(6 - rank), values[6 - rank :]))
    assert fitted.factors.shape == (*shape, rank)
    torch.testing.assert_close(fitted.noise, average)
    torch.testing.assert_close(dense(fitted), q @ torch.diag(kept) @ q.T)
    assert torch.equal(fitted.mean, mean)
    gram = fitted.factors.flatten(0, -2).T @ fitted.factors.flatten(0, -2)
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2, 4])
def test_ppca_recovers_a_covariance_of_its_kind(rank):
    truth = random_gaussian((2, 3), rank)

    fitted = ppca(truth.mean, dense(truth), rank)

    torch.testing.assert_close(fitted.noise, truth.noise)
    torch.testing.assert_close(dense(fitted), dense(truth))


def test_ppca_of_more_factors_than_needed():
    truth = random_gaussian(VECTOR, 1)

    torch.testing.assert_close(dense(ppca(truth.mean, dense(truth), 4)), dense(truth))


def test_ppca_of_the_standard_gaussian():
    standard = Gaussian.standard((2, 3))

    assert standard.factors.shape == (2, 3, 0)
    torch.testing.assert_close(dense(standard), torch.eye(6))
    torch.testing.assert_close(dense(ppca(standard.mean, dense(standard), 0)), torch.eye(6))


def test_ppca_of_a_singular_covariance_is_positive():
    x = torch.randn(3, 5, dtype=torch.float64)  # fewer samples than dimensions

    fitted = ppca(*moments(x), 4)

    assert fitted.noise > 0
    assert torch.isfinite(fitted.factors).all()
    assert torch.linalg.eigvalsh(dense(fitted)).min() > -1e-12


@pytest.mark.parametrize("rank", [-1, 6, 64])
def test_ppca_refuses_an_impossible_rank(rank):
    covariance, _, _ = spectrum()

    with pytest.raises((ValueError, DiemError), match="rank"):
        ppca(torch.zeros(6), covariance, rank)


def test_a_rank_that_the_data_cannot_have_is_told_in_a_sentence():
    # The default rank of 64 is as large as the 8 x 8 digits: a likely mistake of a user.
    observed, _ = observe(random_gaussian(VECTOR, 2), PROJECTION, 10, 0.1)

    with pytest.raises(DiemError, match=r"gaussian\.rank"):
        fit_to_observations(observed.operator, observed.y, 0.1, 5, 1, torch.Generator())


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_fit_to_samples_needs_no_covariance_matrix(rank, monkeypatch):
    x = random_gaussian((2, 4, 5), 3, torch.float32).sample(500, torch.Generator().manual_seed(0))

    exact = fit_to_samples(x, rank)
    monkeypatch.setattr(module, "COVARIANCE_SIZE", 0)
    state = torch.get_rng_state()
    fitted = fit_to_samples(x, rank)

    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(fitted.mean, exact.mean)
    # Four iterations leave some of the neighbouring directions in, by the ratio of eigenvalues.
    torch.testing.assert_close(fitted.noise, exact.noise, rtol=1e-3, atol=0)
    error = torch.linalg.matrix_norm(dense(fitted) - dense(exact), 2)
    assert error <= 0.01 * torch.linalg.matrix_norm(dense(exact), 2)


def test_a_rank_beyond_the_samples_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "COVARIANCE_SIZE", 0)
    with pytest.raises(DiemError, match=r"gaussian\.rank is 4.* samples, 4"):
        fit_to_samples(torch.rand(4, 10), 4)


def test_moments_by_hand():
    x = torch.tensor([[[0.0, 2.0]], [[4.0, 2.0]], [[2.0, 8.0]]])

    mean, covariance = moments(x)

    assert torch.equal(mean, torch.tensor([[2.0, 4.0]]))
    torch.testing.assert_close(covariance, torch.tensor([[8.0, 0.0], [0.0, 24.0]]) / 3)


# The distribution and its denoiser


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_moments(rank, dtype):
    gaussian = random_gaussian(IMAGE, rank, dtype)

    x = gaussian.sample(20_000, torch.Generator().manual_seed(0))

    assert x.dtype == dtype
    assert x.shape == (20_000, *IMAGE)
    assert_moments(x, gaussian.mean.flatten().double(), dense(gaussian).double())


def test_samples_repeat():
    gaussian = random_gaussian(VECTOR, 2)

    one, other = (gaussian.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))

    assert torch.equal(one, other)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 30.0])
def test_denoising_covariance_is_its_formula(rank, sigma):
    gaussian = random_gaussian(IMAGE, rank)
    eye = torch.eye(8, dtype=torch.float64)

    covariance = gaussian.denoising_covariance(torch.tensor(sigma**2, dtype=torch.float64))

    expected = torch.linalg.inv(torch.linalg.inv(dense(gaussian)) + eye / sigma**2)
    applied = covariance(eye.reshape(8, *IMAGE)).flatten(1)
    torch.testing.assert_close(applied, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 100.0])
def test_denoising_covariance_keeps_its_digits_in_single_precision(sigma):
    # The formula with its two inverses loses them where sigma^2 and the eigenvalues differ much.
    gaussian = random_gaussian(IMAGE, 2)
    single = gaussian.to(torch.float32)
    eye = torch.eye(8).reshape(8, *IMAGE)

    exact = gaussian.denoising_covariance(torch.tensor(sigma**2, dtype=torch.float64))
    rounded = single.denoising_covariance(torch.tensor(sigma**2))

    torch.testing.assert_close(rounded(eye).double(), exact(eye.double()), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.6, 1.0])
def test_the_denoiser_is_exact(rank, t):
    gaussian = random_gaussian(IMAGE, rank)
    schedule = VESchedule(1e-2, 1e1)
    x_t = torch.randn(4, *IMAGE, dtype=torch.float64)
    t = torch.tensor([t], dtype=torch.float64)

    mean = gaussian.denoiser(schedule)(x_t, t).mean

    covariance, sigma = dense(gaussian), schedule.sigma(t)
    total = covariance + sigma**2 * torch.eye(8, dtype=torch.float64)
    moved = torch.linalg.solve(total, (x_t - gaussian.mean).flatten(1).T)
    expected = gaussian.mean.flatten() + (covariance @ moved).T
    torch.testing.assert_close(mean.flatten(1), expected, rtol=1e-7, atol=1e-9)


def test_moving_keeps_the_values():
    gaussian = random_gaussian(VECTOR, 2)

    single = gaussian.to(torch.float32)

    assert {v.dtype for v in (single.mean, single.noise, single.factors)} == {torch.float32}
    torch.testing.assert_close(single.factors.double(), gaussian.factors, rtol=1e-6, atol=1e-7)


# The posterior


@pytest.mark.parametrize("sigma_y", NOISES)
@pytest.mark.parametrize(("spec", "shape"), PROBLEMS)
@pytest.mark.parametrize("rank", [0, 3])
def test_posterior_mean_is_its_formula(spec, shape, sigma_y, rank):
    gaussian = random_gaussian(shape, rank)
    operator = simulate(spec, shape, 20)
    sigma_y = noise(sigma_y, operator.observation_shape)
    y = 2 * torch.randn(20, *operator.observation_shape, dtype=torch.float64)

    mean = gaussian.posterior_mean(operator, y, sigma_y)

    a = matrices(operator)
    pairs = zip(a, y, strict=True)
    expected = torch.stack([analytic_posterior(gaussian, *ay, sigma_y)[0] for ay in pairs])
    # What the solver leaves moves x by at most half of it, in prior standard deviations.
    spread = math.sqrt(torch.linalg.eigvalsh(dense(gaussian)).max())
    bound = module.SOLVED * math.sqrt(a.shape[1]) * spread / 2
    assert (mean.flatten(1) - expected).norm(dim=1).max() <= bound


@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("chunk", [10**6, 1], ids=["together", "one by one"])
def test_masks_are_solved_by_a_factorization_to_the_last_digits(rank, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    gaussian = random_gaussian((1, 4, 4), rank)
    # Some observations are there several times, with noise of each value.
    rows = torch.tensor([0, 0, 0, 1, 2, 2, 3, 0])
    operator = simulate(MASK, (1, 4, 4), 4)[rows]
    sigma_y = 10 ** torch.linspace(-4, 0, 16, dtype=torch.float64).reshape(1, 4, 4)
    y = torch.randn(len(rows), 1, 4, 4, dtype=torch.float64)

    mean = gaussian.posterior_mean(operator, y, sigma_y)

    pairs = zip(matrices(operator), y, strict=True)
    expected = [analytic_posterior(gaussian, *ay, sigma_y)[0] for ay in pairs]
    torch.testing.assert_close(mean.flatten(1), torch.stack(expected), rtol=1e-7, atol=1e-9)
    monkeypatch.setattr(module, "FEW_FACTORS", -1)
    iterated = gaussian.posterior_mean(operator, y, sigma_y)
    torch.testing.assert_close(mean, iterated, rtol=0, atol=1e-3)


def test_masks_are_solved_all_the_same_where_no_factorization_can():
    # Data of exactly low rank, of which fewer values are seen than there are factors.
    gaussian = random_gaussian((1, 4, 4), 6)
    gaussian = dataclasses.replace(gaussian, noise=torch.tensor(2.3e-16, dtype=torch.float64))
    operator = build("mask", (1, 4, 4), {"mask": np.eye(4, dtype=bool)[None, None]})
    y = operator.forward(gaussian.sample(5, torch.Generator().manual_seed(0)))

    mean = gaussian.posterior_mean(operator, y, 1e-12)

    assert mean.isfinite().all()


EXACT = [
    pytest.param({"name": "mask", "missing": 0.5}, (2, 8, 8), id="mask"),
    pytest.param({"name": "projection", "rows": 24}, (64,), id="projection"),
    pytest.param({"name": "blur", "size": 5, "intensity": 0.5}, (1, 8, 8), id="blur"),
    pytest.param({"name": "downsample", "factor": 2}, (1, 8, 8), id="downsample"),
    pytest.param({"name": "fourier", "acceleration": 2}, (1, 8, 8), id="fourier-real"),
    pytest.param({"name": "fourier", "acceleration": 2}, (2, 8, 8), id="fourier-complex"),
    pytest.param({"name": "fourier", "acceleration": 2, "coils": 3}, (2, 8, 8), id="coils"),
]


@pytest.mark.slow
@pytest.mark.parametrize("sigma_y", [1e-5, 1e-3, 1e-2, 1.0])
@pytest.mark.parametrize(("spec", "shape"), EXACT)
def test_posteriors_are_exact_at_every_noise(spec, shape, sigma_y):
    gaussian, count = random_gaussian(shape, 16), 10
    observed, _ = observe(gaussian, spec, count, sigma_y)
    operator, y, single = observed.operator, observed.y, gaussian.to(torch.float32)

    mean = single.posterior_mean(operator, y, observed.sigma_y)
    x = single.sample_posterior(operator, y, observed.sigma_y, torch.Generator().manual_seed(5))

    # The mean is off by at most a hundredth of the posterior's standard deviation, or by what
    # single precision cannot hold.
    a = operator.double().dense(torch.float64)[:10]
    for found, matrix, value in zip(mean, a, y, strict=False):
        expected, covariance = analytic_posterior(gaussian, matrix, value, sigma_y)
        error = (found.double().flatten() - expected).abs()
        assert (error <= 0.01 * covariance.diagonal().sqrt() + 1e-6).all()
    # Samples are as far from what was observed as the truth is.
    residual = (y.double() - operator.double().forward(x.double())) / sigma_y
    residual = residual[operator.observed().expand_as(y)]
    error = residual.square().mean().sqrt() - 1
    assert error.abs() <= SIGMAS / math.sqrt(2 * len(residual)) + 1e-3


def blurring(size):
    """Returns a projection that blurs: its singular values fall to nothing."""
    i = np.arange(size)
    matrix = np.exp(-((i[:, None] - i) ** 2) / 18)
    matrix = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return build("projection", (size,), {"matrix": matrix[None]})


@pytest.mark.parametrize("sigma_y", [1e-8, 1e-5, 0.1, DIAGONAL])
def test_more_observed_values_than_x_has_are_no_harder(sigma_y):
    # Rows that depend on each other: without noise their system is singular.
    gaussian, rows = random_gaussian((3,), 1), 40
    operator = build("projection", (3,), {"matrix": torch.randn(2, rows, 3)})
    a = operator.parameters["matrix"].double()
    sigma = noise(sigma_y, (rows,))
    x = gaussian.sample(2, torch.Generator().manual_seed(0))
    y = (a @ x[..., None])[..., 0] + sigma * torch.randn(2, rows, dtype=torch.float64)

    mean, covariance = module._dense_moments(gaussian, operator, y, sigma)
    moved = gaussian.posterior_mean(operator, y, sigma)

    # By the precision, which is well-conditioned here.
    precision = torch.linalg.inv(dense(gaussian))
    exact, spread = [], torch.zeros(3, 3, dtype=torch.float64)
    for each, values in zip(a / sigma.expand(rows)[:, None], y, strict=True):
        posterior = torch.linalg.inv(precision + each.T @ each)
        shift = precision @ gaussian.mean + each.T @ (values / sigma)
        exact.append(posterior @ shift)
        spread += posterior / 2
    exact = torch.stack(exact)
    torch.testing.assert_close(moved, exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean, exact.mean(dim=0), rtol=1e-6, atol=1e-6)
    centred = exact - exact.mean(dim=0)
    torch.testing.assert_close(covariance, spread + centred.T @ centred / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [8, 24])
def test_noise_so_small_that_a_system_is_singular(size):
    # Of a real image a frequency and its conjugate tell the same.
    spec, shape = {"name": "fourier", "acceleration": 2}, (1, size, size)
    operator = simulate(spec, shape, 4)
    gaussian = random_gaussian(shape, 2)
    y = operator.forward(gaussian.sample(4, torch.Generator().manual_seed(0)))

    x = gaussian.sample_posterior(operator, y, 1e-9, torch.Generator().manual_seed(1))
    fitted = fit_to_observations(operator, y, 1e-9, 2, 2, torch.Generator().manual_seed(2))

    assert (operator.forward(x) - y).abs().max() < 1e-7
    assert all(values.isfinite().all() for values in vars(fitted).values())


def test_a_fit_that_is_not_finite_is_told():
    operator = simulate(MASK, IMAGE, 8)
    y = torch.full((8, *IMAGE), 1e200, dtype=torch.float64) * operator.observed()

    with pytest.raises(DiemError, match="sigma_y is too small"):
        fit_to_observations(operator, y, 1e-3, 2, 3, torch.Generator())


def test_an_ill_conditioned_system_is_solved_all_the_same():
    gaussian, operator = random_gaussian((64,), 8, torch.float32), blurring(64)
    y = operator.forward(gaussian.sample(20, torch.Generator().manual_seed(0)))

    mean = gaussian.posterior_mean(operator, y, 1e-5)

    matrix = operator.double().dense(torch.float64)[0]
    for found, value in zip(mean, y, strict=True):
        expected, covariance = analytic_posterior(gaussian, matrix, value, 1e-5)
        error = (found.double() - expected).abs()
        assert (error <= 0.01 * covariance.diagonal().sqrt() + 1e-6).all()


def test_a_system_that_is_not_solved_is_told(monkeypatch, caplog):
    monkeypatch.setattr(module, "SOLVED_SIZE", 0)
    gaussian, operator = random_gaussian((64,), 8, torch.float32), blurring(64)
    y = operator.forward(gaussian.sample(20, torch.Generator().manual_seed(0)))

    gaussian.posterior_mean(operator, y, 1e-5)

    assert "The posterior of 20 of 20 observations" in caplog.text


class Single(OPERATORS.find("mask")):
    """A mask that holds a constant of single precision, and so takes no other."""

    def forward(self, x):
        return torch.einsum("ij,b...j->b...i", torch.eye(x.shape[-1]), super().forward(x))


@pytest.mark.parametrize("sigma_y", [1e-3, 0.1])
def test_an_operator_of_single_precision(sigma_y):
    gaussian = random_gaussian((1, 4, 4), 3, torch.float32)
    observed, _ = observe(gaussian, MASK, 10, sigma_y)
    own = Single((1, 4, 4), observed.operator.parameters)

    means = [gaussian.posterior_mean(a, observed.y, sigma_y) for a in (observed.operator, own)]

    assert means[1].dtype == torch.float32
    torch.testing.assert_close(*means, rtol=1e-3, atol=1e-4)


class Counting(OPERATORS.find("mask")):
    """A mask that takes one vector for each of its observations, and no other number."""

    def forward(self, x):
        if len(x) != len(self):
            raise RuntimeError(f"{len(x)} vectors, and {len(self)} observations")
        return super().forward(x)

    adjoint = forward


def test_an_operator_of_as_many_vectors_as_observations_has_double_precision():
    gaussian = random_gaussian((1, 4, 4), 3, torch.float32)
    observed, _ = observe(gaussian, MASK, 10, 1e-3)
    own = Counting((1, 4, 4), observed.operator.parameters)

    means = [gaussian.posterior_mean(a, observed.y, 1e-3) for a in (observed.operator, own)]

    # In single precision the solver would end tens of these tolerances away.
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "shape"), PROBLEMS)
@pytest.mark.parametrize("sigma_y", [1e-2, 0.1])
def test_posterior_mean_in_single_precision(spec, shape, sigma_y):
    gaussian = random_gaussian(shape, 3)
    observed, _ = observe(gaussian, spec, 200, sigma_y)

    mean = gaussian.to(torch.float32).posterior_mean(observed.operator, observed.y, sigma_y)

    pairs = zip(matrices(observed.operator), observed.y, strict=True)
    expected = torch.stack([analytic_posterior(gaussian, *ay, sigma_y)[0] for ay in pairs])
    # The observations are of the model: what counts is the error against the prior's spread.
    spread = dense(gaussian).diagonal().sqrt().min()
    assert (mean.flatten(1) - expected).abs().max() <= 0.01 * spread


@pytest.mark.parametrize("sigma_y", NOISES)
@pytest.mark.parametrize(("spec", "shape"), PROBLEMS)
def test_posterior_samples_have_the_posterior_moments(spec, shape, sigma_y):
    gaussian = random_gaussian(shape, 3)
    count, operator = 20_000, simulate(spec, shape, 1, torch.float32, seed=2)
    sigma_y = noise(sigma_y, operator.observation_shape, torch.float32)
    y = operator.forward(gaussian.sample(1, torch.Generator().manual_seed(3)).float())
    generator = torch.Generator().manual_seed(4)

    x = gaussian.to(torch.float32).sample_posterior(
        repeated(operator, count), y.expand(count, *y.shape[1:]), sigma_y, generator
    )

    assert x.dtype == torch.float32
    assert_moments(x, *analytic_posterior(gaussian, matrices(operator)[0], y[0], sigma_y))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "shape"), PROBLEMS)
def test_posterior_samples_of_many_operators(spec, shape):
    # Whitened by its own posterior, every sample is a draw of N(0, I).
    gaussian = random_gaussian(shape, 3)
    operator = simulate(spec, shape, 4000)
    generator = torch.Generator().manual_seed(4)
    y = operator.forward(gaussian.sample(4000, generator))
    y = y + 0.3 * torch.randn(y.shape, generator=generator, dtype=y.dtype)

    x = gaussian.sample_posterior(operator, y, 0.3, generator)

    white = []
    for sample, a, value in zip(x.flatten(1), matrices(operator), y, strict=True):
        mean, covariance = analytic_posterior(gaussian, a, value, 0.3)
        factor = torch.linalg.cholesky(covariance)
        white.append(torch.linalg.solve_triangular(factor, (sample - mean)[:, None], upper=False))
    size = x[0].numel()
    zero, eye = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    assert_moments(torch.stack(white)[..., 0], zero, eye)


def test_a_posterior_without_information_is_the_prior():
    gaussian = random_gaussian(IMAGE, 3)
    mask = simulate(MASK, IMAGE, 20_000, torch.float32)
    mask.parameters["mask"][:] = False

    x = gaussian.to(torch.float32).sample_posterior(
        mask, torch.zeros(20_000, *IMAGE), 0.01, torch.Generator().manual_seed(0)
    )

    assert_moments(x, gaussian.mean.flatten(), dense(gaussian))


# The fit to observations


def log_likelihood(gaussian, observed):
    """Returns the exact mean marginal log-likelihood of observations, without what is padding."""
    gaussian, total = gaussian.to(torch.float64), 0.0
    covariance, mean = dense(gaussian), gaussian.mean.flatten()
    var_y = observed.sigma_y.double().square().expand(observed.y.shape[1:]).flatten()
    rows = zip(matrices(observed.operator), observed.y, observed.operator.observed(), strict=True)
    for a, y, kept in rows:
        kept = kept.flatten()
        a, y = a[kept], y.double().flatten()[kept]
        s = a @ covariance @ a.T + torch.diag(var_y[kept])
        normal = torch.distributions.MultivariateNormal(a @ mean, s)
        total += normal.log_prob(y).item() if len(y) else 0.0
    return total / len(observed.y)


FITS = [
    pytest.param(MASK, IMAGE, 3, 0.1, id="mask"),
    pytest.param({"name": "mask", "missing": 0.75}, IMAGE, 1, 0.5, id="mask-noisy"),
    pytest.param(MASK, IMAGE, 0, 0.1, id="isotropic"),
    pytest.param(PROJECTION, VECTOR, 3, 0.01, id="projection"),
    pytest.param({"name": "projection", "rows": 1}, (3,), 2, 0.1, id="projection-row"),
    pytest.param(PROJECTION, VECTOR, 2, torch.tensor([0.05, 0.5]), id="diagonal-noise"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "shape", "rank", "sigma_y"), FITS)
def test_no_iteration_lowers_the_marginal_likelihood(spec, shape, rank, sigma_y):
    observed, _ = observe(random_gaussian(shape, 2), spec, 150, sigma_y)

    curve = [log_likelihood(Gaussian.standard(shape), observed)]
    for iterations in (1, 2, 3, 5, 9, 16, 30, 60):
        fitted = fit_to_observations(
            observed.operator, observed.y, observed.sigma_y, rank, iterations, torch.Generator()
        )
        curve.append(log_likelihood(fitted, observed))

    # Exact but for the rounding of each iteration's result to single precision.
    steps = torch.tensor(curve).diff()
    assert steps.min() >= -1e-5, curve
    assert curve[-1] > curve[0] + 0.01


@pytest.mark.parametrize("rank", [0, 2, 4])
def test_full_observation_recovers_the_ppca_of_the_samples(rank):
    observed, _ = observe(random_gaussian(VECTOR, 2), {"name": "projection", "rows": 5}, 400, 0.1)
    observed.operator.parameters["matrix"][:] = torch.eye(5)
    observed = observed.operator, observed.operator.forward(observed.y), 0.1

    fitted = fit_to_observations(*observed, rank, 60, torch.Generator())

    # The likelihood of y ~ N(mu, Sigma_x + sigma_y^2 I) is largest at the PPCA of y, whose
    # eigenvalues are the prior's plus the noise. An iteration leaves at most the fraction
    # 1 - (lambda / (lambda + sigma_y^2))^2 ~ 0.06 of the error, so that rounding is what remains.
    y = observed[1].double()
    expected = dense(ppca(*moments(y), rank)) - 0.01 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(fitted.mean.double(), y.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dense(fitted).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dense_size", [256, 0])
def test_a_shrunken_fit_is_that_of_more_observations(dense_size, monkeypatch):
    # Where all is seen without noise, its covariance is known: that of 40 rows and of 10 more,
    # which vary alike in all directions and as much as the rows do on the average.
    monkeypatch.setattr(module, "DENSE_SIZE", dense_size)
    observed, _ = observe(random_gaussian(VECTOR, 2), {"name": "projection", "rows": 5}, 40, 1e-4)
    observed.operator.parameters["matrix"][:] = torch.eye(5)

    fitted = fit_to_observations(
        observed.operator, observed.y, 1e-4, 4, 60, torch.Generator(), shrinkage=10.0
    )

    mean, covariance = moments(observed.y.double())
    shrunken = (40 * covariance + 10 * covariance.trace() / 5 * torch.eye(5)) / 50
    torch.testing.assert_close(fitted.mean.double(), mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dense(fitted).double(), shrunken, rtol=1e-3, atol=1e-3)


def test_a_gaussian_that_is_not_shrunken_is_the_same_to_the_last_bit():
    gaussian = random_gaussian(IMAGE, 2, torch.float32)
    same = gaussian.shrunk(0.0)
    for name in ("mean", "noise", "factors"):
        assert torch.equal(getattr(same, name), getattr(gaussian, name))
    flat = gaussian.shrunk(1.0)
    variance = dense(gaussian).diagonal().mean()
    torch.testing.assert_close(dense(flat), variance * torch.eye(8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "shape"),
    [pytest.param(MASK, IMAGE, id="mask"), pytest.param(PROJECTION, VECTOR, id="projection")],
)
def test_more_observations_recover_the_truth(spec, shape):
    truth = random_gaussian(shape, 2)
    observed, _ = observe(truth, spec, 20_000, 0.1)

    fitted = fit_to_observations(
        observed.operator, observed.y, observed.sigma_y, 2, 40, torch.Generator()
    )

    # A mask shows two values at once in a quarter of the observations, and a projection tells
    # some less: counted as a sixth of them, the standard error of an entry of the covariance is
    # sqrt(2 / 3,300) times the largest variance.
    scale = torch.linalg.eigvalsh(dense(truth)).max()
    error = (dense(fitted).double() - dense(truth)).abs().max()
    assert error <= SIGMAS * math.sqrt(2 / 3300) * scale
    assert (fitted.mean.double() - truth.mean).abs().max() <= SIGMAS * torch.sqrt(scale / 3300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "shape"),
    [pytest.param(MASK, IMAGE, id="mask"), pytest.param(PROJECTION, VECTOR, id="projection")],
)
def test_the_drawn_path_agrees_with_the_dense_one(spec, shape, monkeypatch):
    count, iterations = 4000, 5
    observed, _ = observe(random_gaussian(shape, 2), spec, count, 0.1)
    arguments = observed.operator, observed.y, observed.sigma_y, 2, iterations

    exact = fit_to_observations(*arguments, torch.Generator())
    monkeypatch.setattr(module, "DENSE_SIZE", 0)
    monkeypatch.setattr(module, "COVARIANCE_SIZE", 0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    drawn = fit_to_observations(*arguments, torch.Generator().manual_seed(0))
    again = fit_to_observations(*arguments, torch.Generator().manual_seed(0))

    # Each iteration's covariance has the error of N draws, at most sqrt(2 / N) times the largest
    # variance. The errors are independent, and EM contracts towards its maximum: at most they add
    # in square.
    scale = torch.linalg.eigvalsh(dense(exact)).max()
    bound = SIGMAS * math.sqrt(2 / count * iterations) * scale
    assert (dense(drawn) - dense(exact)).abs().max() <= bound
    assert (drawn.mean - exact.mean).abs().max() <= SIGMAS * torch.sqrt(iterations / count * scale)
    assert torch.equal(drawn.factors, again.factors)


def test_the_dense_path_draws_nothing():
    observed, _ = observe(random_gaussian(VECTOR, 2), PROJECTION, 50, 0.1)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()

    fit_to_observations(observed.operator, observed.y, observed.sigma_y, 2, 3, generator)

    assert torch.equal(before, generator.get_state())
