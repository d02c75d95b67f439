"""The spread that few steps leave out: with it, samples of few steps have the right moments."""

import math

import pytest
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import VESchedule
from helpers import (
    analytic_posterior,
    assert_moments,
    dense,
    matrices,
    random_gaussian,
    repeated,
    simulate,
)

from diem.diffusion.covariances import CARD_ERROR, COVARIANCES
from diem.diffusion.covariances.measured import Measured
from diem.diffusion.gaussian import fit_to_samples
from diem.diffusion.posterior import PosteriorDenoiser
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers import SAMPLERS, noise_levels, sample_prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.spread import Spread
from diem.em.laps import sampling_of_lap
from diem.em.loss import LEVELS, denoising_error
from diem.errors import DiemError
from diem.operators.projection import Projection
from diem.seeds import Stage, stream_beside

VECTOR, IMAGE = (5,), (1, 4, 4)
SPECS = [
    pytest.param({"name": "mask", "missing": 0.5}, IMAGE, id="mask"),
    pytest.param({"name": "projection", "rows": 2}, VECTOR, id="projection"),
    pytest.param({"name": "blur", "size": 3, "intensity": 0.5}, IMAGE, id="blur"),
]
SLOW = pytest.mark.slow
SCHEDULE = VESchedule(1e-3, 1e1)


def diffusion(gaussian):
    """Returns a Gaussian as a prior with a denoiser, which is exact."""
    gaussian = gaussian.to(torch.float32)
    return Prior(gaussian, gaussian.denoiser(SCHEDULE), {})


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def karras(steps, spread="all"):
    return DDPM(steps=steps, spacing="karras", spread=spread)


class Mixture(Denoiser):
    """The exact denoiser of a mixture of isotropic Gaussians."""

    weights = torch.tensor([0.3, 0.7])
    means = torch.tensor([[1.5, 0.0, 0.0], [-1.5, 0.0, 0.5]])
    variance = 0.09
    schedule = SCHEDULE

    def __init__(self):
        super().__init__()
        self.device = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x_t, t):
        total = self.variance + self.schedule.sigma(t) ** 2
        shift = x_t[:, None] - self.means
        share = (self.weights.log() - shift.square().sum(dim=-1) / (2 * total)).softmax(dim=1)
        mean = self.means + self.variance / total * shift
        return DiracPosterior((share[..., None] * mean).sum(dim=1))


def mixture():
    """Returns a mixture as a prior, with the error of its denoiser."""
    mode = (torch.rand(4096, generator=stream(1)) < Mixture.weights[1]).long()
    noise = torch.randn(4096, 3, generator=stream(2))
    x = Mixture.means[mode] + math.sqrt(Mixture.variance) * noise
    return Prior(
        fit_to_samples(x, 1), Mixture(), {CARD_ERROR: denoising_error(Mixture(), x, 0, 64)}
    )


# Exact answers


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps", [1, 2, 4, pytest.param(8, marks=SLOW), pytest.param(16, marks=SLOW)]
)
@pytest.mark.parametrize(("spec", "shape"), SPECS)
def test_samples_of_few_steps_vary_as_the_posterior(spec, shape, steps):
    gaussian, sigma_y = random_gaussian(shape, 3), 0.1
    operator = simulate(spec, shape, 1, torch.float32, seed=2)
    # So many residuals, of which the RMS is known to a quarter of its allowance.
    count = 80_000 // int(operator.observed().sum())
    seen = operator.observed().expand(1, *operator.observation_shape)
    y = operator.forward(gaussian.sample(1, stream(3)).float())
    y = y + sigma_y * torch.randn(y.shape, generator=stream(4)) * seen

    sampler = PosteriorSampler(karras(steps), iterations=8)
    many = repeated(operator, count)
    x = sampler(diffusion(gaussian), many, y.expand(count, *y.shape[1:]), sigma_y, stream())

    matrix, seen = matrices(operator)[0], seen.flatten()
    mean, covariance = analytic_posterior(gaussian, matrix, y[0], sigma_y)
    total = x.double().flatten(1).var(dim=0).sum() / covariance.trace()
    assert total.item() == pytest.approx(1, abs=0.03)
    expected = (y.double().flatten() - matrix @ mean).square()
    expected = (expected + (matrix @ covariance @ matrix.T).diagonal())[seen].mean().sqrt()
    rms = (y - many.forward(x)).double().flatten(1)[:, seen].square().mean().sqrt()
    assert (rms / expected).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("spec", "shape"), SPECS)
@pytest.mark.parametrize("covariance", ["tweedie", "measured", "identity"])
def test_few_iterations_do_for_noise_that_differs_from_value_to_value(covariance, spec, shape):
    # One step length for all values would be that of the noisiest: posteriors are then up to forty
    # standard deviations off.
    gaussian, count = random_gaussian(shape, 3), 2_000
    operator = simulate(spec, shape, 1, torch.float32, seed=2)
    seen = operator.observed().expand(1, *operator.observation_shape)
    sigma_y = torch.where(torch.arange(seen.numel()) % 3 > 0, 0.02, 1.0).reshape(seen.shape)
    y = operator.forward(gaussian.sample(1, stream(3)).float())
    y = (y + sigma_y * torch.randn(y.shape, generator=stream(4))) * seen
    iterations = 8 if spec["name"] == "blur" else 1

    sampler = PosteriorSampler(karras(16), COVARIANCES.parse(covariance), iterations)
    x = sampler(
        diffusion(gaussian),
        repeated(operator, count),
        y.expand(count, *y.shape[1:]),
        sigma_y.expand(count, *y.shape[1:]),
        stream(),
    )

    matrix, seen = matrices(operator)[0], seen.flatten()
    noise = sigma_y.flatten().double()
    mean, posterior = analytic_posterior(gaussian, matrix, y[0], noise)
    x = x.double().flatten(1)
    apart, sd = (x.mean(dim=0) - mean) @ matrix.T, (matrix @ posterior @ matrix.T).diagonal().sqrt()
    assert (apart / sd)[seen].square().mean().sqrt() < 0.3
    assert (apart / sd)[seen].abs().max() < 1.0
    ratio = ((x @ matrix.T).std(dim=0) / sd)[seen]
    assert 0.7 < ratio.min() < ratio.max() < 1.3


@pytest.mark.parametrize(
    ("gains", "sigma_y"),
    [
        ([10.0, 0.1, 1.0, 1.0], [0.02, 1.0, 0.02, 1.0]),
        ([3.0, 1.0, 1.0, 1.0], [0.02]),
        ([1e4, 1.0, 1.0, 1.0], [0.3]),
    ],
)
def test_few_iterations_do_for_noise_and_gains_that_differ(gains, sigma_y):
    gaussian, count = random_gaussian((6,), 3), 2_000
    gains, sigma_y = torch.tensor(gains), torch.tensor(sigma_y).expand(4)
    rows = torch.linalg.qr(torch.randn(6, 4, generator=stream(2))).Q.T
    operator = Projection((6,), {"matrix": (gains[:, None] * rows)[None]})
    y = operator.forward(gaussian.sample(1, stream(3)).float())
    y = y + sigma_y * torch.randn(y.shape, generator=stream(4))

    x = PosteriorSampler(karras(16))(
        diffusion(gaussian),
        repeated(operator, count),
        y.expand(count, -1),
        sigma_y.expand(count, -1),
        stream(),
    ).double()

    matrix = matrices(operator)[0]
    mean, posterior = analytic_posterior(gaussian, matrix, y[0], sigma_y.double())
    sd = (matrix @ posterior @ matrix.T).diagonal().sqrt()
    assert ((x.mean(dim=0) - mean) @ matrix.T / sd).abs().max() < 0.3
    ratio = (x @ matrix.T).std(dim=0) / sd
    assert 0.8 < ratio.min() < ratio.max() < 1.2


def test_noise_of_a_neighbour_changes_no_bit():
    gaussian = random_gaussian(IMAGE, 3)
    operator = simulate(SPECS[0].values[0], IMAGE, 4, torch.float32)
    y = operator.forward(gaussian.sample(4, stream(3)).float())
    equal = torch.full((4, *IMAGE), 0.1)
    other = equal.clone()
    other[2:, ..., 0] = 2.0
    draw = PosteriorSampler(karras(4))

    x, beside = (
        draw(diffusion(gaussian), operator, y, noise, stream()) for noise in (equal, other)
    )

    assert (x[:2] == beside[:2]).all()
    assert (x[2:] != beside[2:]).any()


@pytest.mark.parametrize("sigma_y", [[0.05, 0.5], [[0.05, 0.5]]])
def test_each_value_has_its_own_noise(sigma_y):
    gaussian, count = random_gaussian(VECTOR, 3), 10_000
    operator = simulate({"name": "projection", "rows": 2}, VECTOR, 1, torch.float32, seed=2)
    y, sigma_y = torch.tensor([[0.5, -1.0]]), torch.tensor(sigma_y)

    x = PosteriorSampler(karras(4), iterations=4)(
        diffusion(gaussian),
        repeated(operator, count),
        y.expand(count, 2),
        sigma_y.expand(count, 2) if sigma_y.ndim > 1 else sigma_y,
        stream(),
    )

    moments = analytic_posterior(gaussian, matrices(operator)[0], y[0], sigma_y)
    assert_moments(x, *moments, allowance=0.02)


@pytest.mark.parametrize("steps", [1, 4])
def test_prior_samples_of_few_steps_vary_as_the_prior(steps):
    gaussian = random_gaussian(IMAGE, 3)

    x = sample_prior(diffusion(gaussian), 10_000, karras(steps), stream())

    assert_moments(x, gaussian.mean.flatten(), dense(gaussian), allowance=0.02)


@pytest.mark.parametrize("steps", [8, 16])
def test_the_modes_of_a_mixture_keep_their_shares(steps):
    prior, count, sigma_y = mixture(), 8192, 0.5
    operator = Projection((3,), {"matrix": torch.tensor([[[0.0, 0.6, 0.8]]])})
    y = torch.tensor([[0.3]])
    miss = y - Mixture.means @ torch.tensor([0.0, 0.6, 0.8])
    weights = Mixture.weights.log() - miss[0].square() / (2 * (Mixture.variance + sigma_y**2))

    sampler, many = PosteriorSampler(karras(steps)), repeated(operator, count)
    x = sample_prior(prior, count, sampler.sampler, stream())
    z = sampler(prior, many, y.expand(count, 1), sigma_y, stream())

    for draws, share in ((x, Mixture.weights[0]), (z, weights.softmax(0)[0])):
        error = math.sqrt(share * (1 - share) / count)
        # The denoiser's error is measured on 64 samples, whose modes have shares of their own.
        assert abs((draws[:, 0] > 0).float().mean() - share) <= 4 * error + 0.01


# Without it nothing changes


def problem():
    gaussian = random_gaussian(IMAGE, 3)
    operator = simulate({"name": "mask", "missing": 0.5}, IMAGE, 3, torch.float32)
    return diffusion(gaussian), operator, operator.forward(torch.ones(3, *IMAGE)), 0.1


def test_without_the_spread_the_steps_are_those_of_the_mean():
    prior, operator, y, sigma_y = problem()
    x = PosteriorSampler(karras(3, "none"))(prior, operator, y, sigma_y, stream())

    denoiser = PosteriorDenoiser(prior.denoiser, operator, y, sigma_y)
    generator = stream()
    x_t = prior.gaussian.mean + 10 * torch.empty(3, *IMAGE).normal_(generator=generator)
    sigmas = noise_levels("karras", 3, 1e-3, 10.0)
    times = (torch.log(sigmas) - math.log(1e-3)) / math.log(1e4)
    for i, (t, s) in enumerate(zip(sigmas.float(), sigmas.float()[1:], strict=False)):
        tau = 1 - (s / t) ** 2
        mean = denoiser(x_t, times[i : i + 1].float()).mean
        noise = torch.empty_like(x_t).normal_(generator=generator)
        x_t = x_t - tau * (x_t - mean) + s * torch.sqrt(tau) * noise
    assert torch.equal(x, denoiser(x_t, times[3:].float()).mean)


def test_the_spread_has_a_stream_of_its_own():
    prior, *given = problem()
    ends = []
    for spread in ("none", "all"):
        generator = stream()
        x = PosteriorSampler(karras(3, spread))(prior, *given, generator)
        ends.append((x, generator.get_state()))
    assert torch.equal(ends[0][1], ends[1][1])
    assert not torch.equal(ends[0][0], ends[1][0])


def test_a_stream_beside_another():
    generator = stream(5)
    before = generator.get_state()
    a, again = (torch.rand(4, generator=stream_beside(generator, Stage.SPREAD)) for _ in range(2))
    assert torch.equal(generator.get_state(), before)
    torch.rand(1, generator=generator)
    b = torch.rand(4, generator=stream_beside(generator, Stage.SPREAD))

    assert torch.equal(a, again)
    assert not torch.equal(a, b)


# The denoiser's error


def test_the_error_of_an_exact_denoiser_is_its_variance():
    gaussian = random_gaussian(IMAGE, 3, torch.float32)
    denoiser = gaussian.denoiser(SCHEDULE)
    denoiser.weight = torch.nn.Parameter(torch.zeros(()))  # it tells the device
    x = gaussian.sample(64, stream())

    error = denoising_error(denoiser, x, 0, 10)

    assert len(error["sigma"]) == len(error["error"]) == LEVELS
    assert error["sigma"] == sorted(error["sigma"], reverse=True)
    assert error["sigma"][0], error["sigma"][-1] == pytest.approx((10, 1e-3))
    # 64 samples of 16 values, as many as the noise: a twentieth of the variance.
    for sigma, mse in zip(error["sigma"], error["error"], strict=True):
        variance = gaussian.denoising_error(torch.tensor(sigma**2)).covariance
        expected = (variance.D.sum() + variance.V.square().sum()) / 16
        assert mse == pytest.approx(float(expected), rel=0.25)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sigma", [0.001, 0.04, 0.5, 10.0, 100.0])
def test_the_variance_is_scaled_to_the_error(factor, sigma):
    gaussian = random_gaussian(IMAGE, 3)
    sigmas = noise_levels("log_linear", 23, 1e-3, 1e1)
    traces = [dense(gaussian.denoising_error(s**2)).trace() / 16 for s in sigmas]
    error = {"sigma": sigmas.tolist(), "error": [float(factor * trace) for trace in traces]}
    prior = Prior(gaussian, Mixture(), {CARD_ERROR: error})

    var_t = torch.tensor(sigma, dtype=torch.float64)
    expected = factor * dense(gaussian.denoising_error(var_t**2))
    torch.testing.assert_close(dense(Spread.of(prior).at(var_t)), expected)


def test_the_spread_of_a_gaussian_denoiser_is_not_scaled():
    spread = Spread.of(diffusion(random_gaussian(IMAGE, 3)))

    assert spread.log_ratio.tolist() == [0.0]


def test_a_prior_without_the_error_is_refused():
    prior = Prior(random_gaussian((3,), 1, torch.float32), Mixture(), {"lap": 1})

    assert torch.isfinite(sample_prior(prior, 2, karras(2, "none"), stream())).all()
    with pytest.raises(DiemError, match=r"'denoising_error', .* set sampler.spread to none .*\.$"):
        sample_prior(prior, 2, karras(2), stream())


# Its place


def test_the_spread_of_a_lap():
    rest = {"repeats": 2, "final": 3}
    entry = {"sampler": {"name": "ddpm", "steps": 8, "spread": "last"}, "block": 4, **rest}

    found = [sampling_of_lap(entry, final)["sampler"]["spread"] for final in (False, True)]
    assert found == ["none", "all"]
    assert entry["sampler"]["spread"] == "last"
    for other in (
        *({"name": "ddpm", "spread": spread} for spread in ("none", "all")),
        {"name": "ddim"},
    ):
        for final, repeats in ((True, 6), (False, 2)):
            found = sampling_of_lap({"sampler": other, **rest}, final)
            assert found == {"sampler": other, "repeats": repeats}


def test_outside_of_the_e_step_last_is_all():
    prior, *given = problem()
    x, z = (
        PosteriorSampler(karras(3, spread))(prior, *given, stream()) for spread in ("last", "all")
    )

    assert torch.equal(x, z)


@pytest.mark.parametrize("name", ["ddim", "pc"])
def test_other_samplers_have_none(name):
    with pytest.raises(DiemError, match=r"e_step\.sampler\.spread is unknown"):
        SAMPLERS.parse({"name": name, "spread": "all"}, "e_step.sampler")


def test_samples_tell_of_the_spread():
    prior = diffusion(random_gaussian((3,), 1))

    assert PosteriorSampler(karras(3)).describe(prior)["sampler"] == "ddpm + spread"
    assert PosteriorSampler(karras(3, "none")).describe(prior)["sampler"] == "ddpm"


@pytest.mark.parametrize(
    ("entry", "iterations"),
    [({"name": "mask", "missing": 0.5}, 16), ({"name": "projection", "rows": 4}, 1)],
)
def test_the_measured_covariance_is_scaled_and_solved(entry, iterations):
    # With the exact error it is that of a Gaussian. Operators that mix values need not ask for
    # iterations.
    gaussian, count = random_gaussian(IMAGE, 3), 4096
    operator = simulate(entry, IMAGE, 1, torch.float32, seed=2)
    y = operator.forward(gaussian.sample(1, stream(3)).float())
    sampler = PosteriorSampler(karras(4), Measured(), iterations=iterations)

    given = (repeated(operator, count), y.expand(count, *y.shape[1:]), 0.1, stream())
    x = sampler(diffusion(gaussian), *given)

    moments = analytic_posterior(gaussian, matrices(operator)[0], y[0], 0.1)
    assert_moments(x, *moments, allowance=0.03)


@pytest.mark.parametrize(("rows", "asked", "taken"), [(2, 1, 2), (12, 1, 8), (12, 9, 9), (2, 3, 3)])
def test_a_small_system_has_no_more_iterations_than_solve_it(rows, asked, taken):
    operator = simulate({"name": "projection", "rows": rows}, IMAGE, 1, torch.float32)
    assert Measured().iterations(asked, operator) == taken


def test_the_measured_covariance_asks_for_the_error():
    prior = Prior(random_gaussian((3,), 1, torch.float32), Mixture(), {"lap": 1})
    operator = Projection((3,), {"matrix": torch.ones(1, 1, 3)})

    with pytest.raises(DiemError, match="covariance to another than measured"):
        PosteriorSampler(karras(2, "none"), Measured())(
            prior, operator, torch.zeros(1, 1), 0.1, stream()
        )
