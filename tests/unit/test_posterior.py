"""The posterior denoiser against dense formulas, against azula's, and its cost."""

import math

import pytest
import torch
from azula.denoise import KarrasDenoiser
from azula.guidance.mmps import MMPSDenoiser
from azula.linalg.covariance import DiagonalCovariance, IsotropicCovariance
from azula.noise import VESchedule
from helpers import analytic_posterior, dense, matrices, random_gaussian, simulate
from torch import nn

from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.posterior import Guidance, PosteriorDenoiser
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.errors import DiemError
from diem.networks import NETWORKS

SCHEDULE = {"sigma_min": 1e-2, "sigma_max": 1e1}
MLP = {"name": "mlp", "hidden": [24, 24], "embedding": 8}
UNET = {
    "name": "unet",
    "channels": [4, 8],
    "blocks": 1,
    "embedding": 8,
    "attention": {"1": 2},
}
IMAGE, VECTOR = (1, 4, 4), (5,)

# (network, operator, event shape)
PROBLEMS = [
    pytest.param(MLP, {"name": "projection", "rows": 3}, VECTOR, id="mlp-projection"),
    pytest.param(MLP, {"name": "mask", "missing": 0.4}, IMAGE, id="mlp-mask"),
    pytest.param(UNET, {"name": "mask", "missing": 0.4}, IMAGE, id="unet-mask"),
]
problems = pytest.mark.parametrize(("network", "spec", "shape"), PROBLEMS)
times = pytest.mark.parametrize("t", [0.05, 0.5, 0.9])


# azula's jvp loads TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def learned(network, shape, seed=0):
    """Returns a denoiser with random weights, in double precision."""
    denoiser = build_denoiser(network, SCHEDULE, shape, seed)
    return denoiser.double().eval().requires_grad_(False)


def exact(shape, rank=2):
    gaussian = random_gaussian(shape, rank)
    return gaussian, gaussian.denoiser(VESchedule(**SCHEDULE))


def problem(spec, shape, batch=3):
    """Returns operators, observations and noisy inputs."""
    operator = simulate(spec, shape, batch)
    y = torch.randn(batch, *operator.observation_shape, dtype=torch.float64)
    y = y * operator.observed()
    return operator, y, torch.randn(batch, *shape, dtype=torch.float64)


def at(t):
    return torch.tensor([t], dtype=torch.float64)


def guided(
    denoiser, operator, y, sigma_y, covariance="tweedie", iterations=1, gaussian=None, limit=None
):
    """Returns the posterior denoiser with a covariance of a name."""
    guidance = Guidance(COVARIANCES.parse(covariance), iterations, limit)
    return PosteriorDenoiser(denoiser, operator, y, sigma_y, guidance, gaussian)


def jacobians(denoiser, x_t, t):
    """Returns the Jacobian of each sample, of shape ``(B, size, size)``."""
    rows = []
    for x in x_t:
        full = torch.autograd.functional.jacobian(lambda x: denoiser(x[None], t).mean[0], x)
        rows.append(full.reshape(x.numel(), x.numel()))
    return torch.stack(rows)


def reference(denoiser, operator, y, sigma_y, x_t, t, variance):
    """Returns ``d + sigma^2 J' A' S^-1 (y - A d)`` with ``S = Sigma_y + A V A'``, densely."""
    a, j = matrices(operator), jacobians(denoiser, x_t, t)
    mean = denoiser(x_t, t).mean.flatten(1)
    var_t = denoiser.schedule.sigma(t) ** 2
    var_y = torch.as_tensor(sigma_y, dtype=torch.float64).square().expand(y.shape[1:])
    s = torch.diag(var_y.flatten()) + a @ variance(var_t) @ a.mT
    b = y.flatten(1)[..., None] - a @ mean[..., None]
    moved = j.mT @ a.mT @ torch.linalg.solve(s, b)
    return (mean + var_t * moved[..., 0]).view_as(x_t)


def noises(spec, shape):
    """Returns noise of every form: a number, a scalar tensor, one number for each value."""
    observation = simulate(spec, shape, 1).observation_shape
    values = torch.linspace(0.1, 2.0, math.prod(observation), dtype=torch.float64)
    return 0.3, torch.tensor(0.05, dtype=torch.float64), values.reshape(observation)


# Each covariance is its formula


@pytest.mark.slow
@problems
@times
@pytest.mark.parametrize("covariance", ["cov_x", "identity", "cov_t", "zeros"])
def test_heuristic_covariances_are_their_formulas(network, spec, shape, t, covariance):
    denoiser, t = learned(network, shape), at(t)
    gaussian = random_gaussian(shape, 2)
    operator, y, x_t = problem(spec, shape)
    eye = torch.eye(math.prod(shape), dtype=torch.float64)
    variance = {
        "cov_x": lambda v: torch.linalg.inv(torch.linalg.inv(dense(gaussian)) + eye / v),
        "identity": lambda v: torch.linalg.inv(eye + eye / v),
        "cov_t": lambda v: v * eye,
        "zeros": lambda v: 0 * eye,
    }[covariance]

    for sigma_y in noises(spec, shape):
        posterior = guided(
            denoiser, operator, y, sigma_y, covariance, iterations=40, gaussian=gaussian
        )
        expected = reference(denoiser, operator, y, sigma_y, x_t, t, variance)
        torch.testing.assert_close(posterior(x_t, t).mean, expected, rtol=1e-8, atol=1e-8)


@times
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param({"name": "projection", "rows": 3}, VECTOR, id="projection"),
        pytest.param({"name": "mask", "missing": 0.4}, IMAGE, id="mask"),
    ],
)
@pytest.mark.parametrize("covariance", ["tweedie", "cov_x"])
def test_the_posterior_denoiser_of_a_gaussian_is_exact(spec, shape, t, covariance):
    # E[x | x_t, y] of a Gaussian: x_t is one more observation of x, with A = I.
    gaussian, denoiser = exact(shape)
    operator, y, x_t = problem(spec, shape)
    sigma_t = denoiser.schedule.sigma(at(t))
    eye = torch.eye(math.prod(shape), dtype=torch.float64)

    for sigma_y in noises(spec, shape):
        posterior = guided(
            denoiser, operator, y, sigma_y, covariance, iterations=40, gaussian=gaussian
        )
        mean = posterior(x_t, at(t)).mean

        for i in range(len(y)):
            values = torch.cat((y[i].flatten(), x_t[i].flatten()))
            spread_y = torch.as_tensor(sigma_y, dtype=torch.float64).expand(y[i].shape).flatten()
            spread = torch.cat((spread_y, sigma_t.expand(len(eye))))
            stacked = torch.cat((matrices(operator)[i], eye))
            expected, _ = analytic_posterior(gaussian, stacked, values, spread)
            torch.testing.assert_close(mean[i].flatten(), expected, rtol=1e-7, atol=1e-7)


@problems
def test_one_iteration_by_hand(network, spec, shape):
    # alpha = b'b / b'Sb, with J' in the place of J in V: exact for any network.
    denoiser, t = learned(network, shape), at(0.5)
    operator, y, x_t = problem(spec, shape)

    mean = guided(denoiser, operator, y, 0.3, "tweedie", 1)(x_t, t).mean

    a, j = matrices(operator), jacobians(denoiser, x_t, t)
    d, var_t = denoiser(x_t, t).mean.flatten(1), denoiser.schedule.sigma(t) ** 2
    b = y.flatten(1)[..., None] - a @ d[..., None]
    s = 0.09 * torch.eye(a.shape[1], dtype=torch.float64) + var_t * a @ j.mT @ a.mT
    alpha = (b.mT @ b) / (b.mT @ s @ b).abs()
    expected = d + var_t * (j.mT @ a.mT @ (alpha * b))[..., 0]
    torch.testing.assert_close(mean.flatten(1), expected)


# Agreement with azula's MMPS


@pytest.mark.slow
@problems
@times
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_agrees_with_azula(network, spec, shape, t, iterations):
    # azula too multiplies by J' in the place of J, and its solver takes every row of a matrix of
    # right-hand sides as a system of its own: the same numbers for any network. More iterations
    # may converge, and azula's solver ends at a squared residual of 2.2e-16. Only negative
    # curvature is treated in another way: the weights are small, so that the preconditioning's
    # positive part outweighs it. Where noise differs from value to value, ours is theirs of y and A
    # in other units, of each value its own.
    denoiser, t = learned(network, shape), at(t)
    last = list(denoiser.parameters())[-2:]
    for parameter in last:
        parameter.mul_(0.1)
    operator, y, x_t = problem(spec, shape)
    tolerance = 1e-10 if iterations <= 2 else 1e-6
    for sigma_y in noises(spec, shape):
        flat = torch.as_tensor(sigma_y, dtype=torch.float64).expand(y.shape[1:]).flatten()
        ours = guided(denoiser, operator, y, sigma_y, "tweedie", iterations)
        assert ours.scales == (flat.min() < flat.max()).item()
        unit = torch.ones_like(flat)
        if ours.scales:
            unit = ours._scale(denoiser.schedule.sigma(t) ** 2).flatten(1)
            assert (unit.amax(dim=1) > unit.amin(dim=1)).all()
        theirs = MMPSDenoiser(
            denoiser,
            unit * y.flatten(1),
            A=lambda x, unit=unit: unit * operator.forward(x).flatten(1),
            cov_y=DiagonalCovariance(unit**2 * flat**2),
            solver="cg",
            iterations=iterations,
        )

        one, other = ours(x_t, t).mean, theirs(x_t, t).mean
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "iterations"), [("cg", 1), ("cg", 2), ("cg", 3), ("cg", 10), ("gmres", 3)]
)
def test_agrees_with_azula_on_a_gaussian(solver, iterations):
    # Its other solver minimises the residual, conjugate gradients the energy: on the way they
    # differ, after as many iterations as unknowns both are exact.
    _, denoiser = exact(VECTOR)
    operator, y, x_t = problem({"name": "projection", "rows": 3}, VECTOR)

    theirs = MMPSDenoiser(
        denoiser, y, operator.forward, IsotropicCovariance(0.09), solver, iterations
    )
    ours = guided(denoiser, operator, y, 0.3, "tweedie", iterations)

    one, other = ours(x_t, at(0.5)).mean, theirs(x_t, at(0.5)).mean
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@problems
def test_negative_curvature_stays_finite(network, spec, shape):
    # At high noise, the Jacobian of a network with random weights has negative eigenvalues.
    denoiser = learned(network, shape)
    operator, y, x_t = problem(spec, shape)
    t = at(0.9)
    j = jacobians(denoiser, x_t, t)
    assert torch.linalg.eigvalsh(j + j.mT).min() < 0

    for iterations in (1, 5, 20):
        mean = guided(denoiser, operator, y, 1e-3, "tweedie", iterations)(x_t, t).mean
        assert torch.isfinite(mean).all()


# The cost


class Backward(torch.autograd.Function):
    """The identity, which counts the products with its Jacobian."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Backward.calls += 1
        return gradient


class Counted(nn.Module):
    """A network that counts its evaluations and its vector-Jacobian products."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.forwards = 0
        Backward.calls = 0

    def forward(self, x, t):
        self.forwards += 1
        return self.network(Backward.apply(x), t)

    @property
    def backwards(self):
        return Backward.calls


@pytest.mark.parametrize("covariance", COVARIANCES.names)
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("limit", [None, 0.5])
def test_the_cost_of_an_evaluation(covariance, iterations, limit, monkeypatch):
    backbone = Counted(NETWORKS.parse(MLP).build(VECTOR).requires_grad_(False))
    denoiser = KarrasDenoiser(backbone, VESchedule(**SCHEDULE))
    operator = simulate({"name": "projection", "rows": 2}, VECTOR, 3, torch.float32)
    products, original = [], torch.autograd.grad

    def grad(*args, **kwargs):
        products.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    posterior = guided(
        denoiser,
        operator,
        torch.randn(3, 2),
        0.1,
        covariance,
        iterations,
        gaussian=random_gaussian(VECTOR, 2, torch.float32),
        limit=limit,
    )

    posterior(torch.randn(3, *VECTOR), torch.tensor([0.5]))

    assert backbone.forwards == 1
    expected = iterations if covariance == "tweedie" else 1
    assert backbone.backwards == len(products) == expected
    assert COVARIANCES.parse(covariance).products(iterations) == expected


@pytest.mark.parametrize("covariance", COVARIANCES.names)
def test_parameters_never_get_gradients(covariance, tmp_path):
    gaussian = random_gaussian(VECTOR, 2, torch.float32)
    denoiser = build_denoiser(MLP, SCHEDULE, VECTOR, seed=0)
    Prior(gaussian, denoiser, {"network": MLP, "schedule": SCHEDULE}).save(tmp_path / "prior")
    loaded = read_prior(tmp_path / "prior").denoiser
    operator = simulate({"name": "projection", "rows": 2}, VECTOR, 3, torch.float32)

    assert not any(p.requires_grad for p in loaded.parameters())
    for some in (loaded, denoiser):  # even those of a denoiser that is about to be trained
        posterior = guided(some, operator, torch.randn(3, 2), 0.1, covariance, 2, gaussian=gaussian)
        mean = posterior(torch.randn(3, *VECTOR), torch.tensor([0.5])).mean
        assert not mean.requires_grad
        assert all(p.grad is None for p in some.parameters())


def test_the_input_is_left_alone():
    operator, y, x_t = problem({"name": "projection", "rows": 2}, VECTOR)
    before = x_t.clone()

    guided(learned(MLP, VECTOR), operator, y, 0.1)(x_t, at(0.5))

    assert torch.equal(x_t, before)
    assert not x_t.requires_grad


@problems
@pytest.mark.parametrize("covariance", COVARIANCES.names)
@pytest.mark.parametrize("limit", [None, 0.5])
def test_a_sample_does_not_depend_on_its_neighbours(network, spec, shape, covariance, limit):
    denoiser, gaussian = learned(network, shape), random_gaussian(shape, 2)
    operator, y, x_t = problem(spec, shape, batch=4)
    scale = torch.tensor([1.0, 100.0, 0.0, 1e-3], dtype=torch.float64)
    y = y * scale.reshape(-1, *(1,) * (y.ndim - 1))

    def posterior(rows):
        options = {"covariance": covariance, "iterations": 3, "gaussian": gaussian, "limit": limit}
        some = guided(denoiser, operator[rows], y[rows], 0.1, **options)
        return some(x_t[rows], at(0.5)).mean

    together = posterior(slice(None))

    for i in range(4):
        alone = posterior(slice(i, i + 1))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-8, atol=1e-8)


# The limit of what is followed


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param({"name": "projection", "rows": 3}, VECTOR, id="projection"),
        pytest.param({"name": "mask", "missing": 0.4}, IMAGE, id="mask"),
    ],
)
def test_the_limit_scales_the_guidance_down(spec, shape):
    gaussian, denoiser = exact(shape)
    operator, y, x_t = problem(spec, shape, batch=6)
    t, limit = at(0.4), 1.5
    d, a = denoiser(x_t, t).mean, matrices(operator)
    distances = torch.logspace(-2, 2, 6, dtype=torch.float64)
    y = operator.forward(d) + distances.reshape(-1, *(1,) * (y.ndim - 1)) * y
    options = {"covariance": "tweedie", "iterations": 40}

    free = guided(denoiser, operator, y, 0.3, **options)(x_t, t).mean
    held = guided(denoiser, operator, y, 0.3, **options, limit=limit)(x_t, t).mean

    size, var_t = math.prod(shape), denoiser.schedule.sigma(t) ** 2
    v = torch.linalg.inv(torch.linalg.inv(dense(gaussian)) + torch.eye(size) / var_t)
    s = 0.09 * torch.eye(a.shape[1]) + a @ v @ a.mT
    b = y.flatten(1)[..., None] - a @ d.flatten(1)[..., None]
    # Only what is observed counts: padding has no residual.
    count = operator.observed().flatten(1).sum(dim=1)
    distance = torch.sqrt((b.mT @ torch.linalg.solve(s, b))[:, 0, 0] / count)
    scale = (limit / distance).clamp(max=1).reshape(-1, *(1,) * len(shape))
    assert (distance > limit).any()
    assert (distance < limit).any()
    torch.testing.assert_close(held, d + scale * (free - d), rtol=1e-8, atol=1e-8)


def test_a_limit_that_is_not_reached_changes_nothing():
    operator, y, x_t = problem({"name": "projection", "rows": 3}, VECTOR)
    denoiser = learned(MLP, VECTOR)

    free, held = (
        guided(denoiser, operator, y, 0.3, limit=limit)(x_t, at(0.5)).mean for limit in (None, 1e6)
    )

    assert torch.equal(free, held)


@pytest.mark.parametrize("covariance", COVARIANCES.names)
@pytest.mark.parametrize("limit", [None, 1.0])
def test_an_observation_of_nothing_gives_the_prior(covariance, limit):
    gaussian, denoiser = exact(IMAGE)
    operator, _, x_t = problem({"name": "mask", "missing": 0.4}, IMAGE)
    operator.parameters["mask"][1] = False

    posterior = guided(
        denoiser,
        operator,
        torch.zeros_like(x_t),
        0.1,
        covariance,
        3,
        gaussian=gaussian,
        limit=limit,
    )
    mean = posterior(x_t, at(0.5)).mean

    assert torch.isfinite(mean).all()
    assert torch.equal(mean[1], denoiser(x_t, at(0.5)).mean[1])


# Misuse


def test_unknown_and_unfit_covariances_are_refused():
    operator, y, _ = problem({"name": "projection", "rows": 2}, VECTOR)

    with pytest.raises(DiemError, match="tweedie"):
        guided(learned(MLP, VECTOR), operator, y, 0.1, "tweedy")
    with pytest.raises(ValueError, match="cov_x"):
        guided(learned(MLP, VECTOR), operator, y, 0.1, "cov_x")


def test_a_covariance_of_the_prior_needs_it():
    operator, y, _ = problem({"name": "mask", "missing": 0.4}, IMAGE)

    assert {name for name, cls in COVARIANCES.all().items() if cls.needs_gaussian} == {
        "cov_x",
        "measured",
    }
    with pytest.raises(ValueError, match="'cov_x' needs the prior's mean"):
        PosteriorDenoiser(
            exact(IMAGE)[1], operator, y, 0.1, Guidance(covariance=COVARIANCES.parse("cov_x"))
        )
