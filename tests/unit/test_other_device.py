"""Computations on a device that is not the CPU: everything that they make is made there."""

import numpy as np
import pytest
import torch
from azula.noise import VPSchedule
from helpers import observe, random_gaussian, simulate
from other_device import DEVICE, Misplaced, OtherDevice, Stream
from test_given import Twice
from test_operators import CASES
from test_restoration import ENTRIES
from test_resume_jobs import SETTINGS
from test_resume_jobs import Job as Made

from diem.data.observations import save_observations
from diem.data.sets import DATASETS
from diem.diffusion import gaussian as gaussians
from diem.diffusion.covariances import CARD_ERROR, COVARIANCES
from diem.diffusion.gaussian import fit_to_observations, fit_to_samples
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers import SAMPLERS, sample_prior
from diem.em.augmentations import AUGMENTATIONS, augment, chosen
from diem.em.restart import replace_contradicting
from diem.em.training import Training, train
from diem.errors import DiemError
from diem.evaluation import dinov2, inception
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.extractor import Extractor
from diem.evaluation.feature_network import FeatureNetwork, Reference
from diem.evaluation.lpips import LAYERS, Perceptual
from diem.evaluation.metrics import METRICS
from diem.evaluation.metrics.base import Fidelity
from diem.evaluation.metrics.distance_to_manifold import CURVE_POINTS, distance_to_manifold
from diem.evaluation.metrics.prediction import crps
from diem.evaluation.metrics.residual import residual, residual_summary
from diem.evaluation.metrics.sinkhorn_divergence import sinkhorn_divergence
from diem.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from diem.evaluation.reconstruct import Reconstruction, reconstruct
from diem.evaluation.transport import truncated_transport
from diem.files.hdf5 import write_hdf5
from diem.inference.prior_denoiser import PriorDenoiser
from diem.jobs.job import Job
from diem.networks import NETWORKS
from diem.operators.given import given, linear, where_shown
from diem.operators.partial import Partial
from diem.operators.verify import verify_operator
from diem.paper.methods import METHODS, Problem
from diem.paper.restoration.prior import HalvedDenoiser
from diem.paper.restoration.restore import restore
from diem.seeds import Stage, torch_generator

SCHEDULE = {"sigma_min": 0.05, "sigma_max": 5.0}
IMAGE = (1, 4, 4)
MASK = {"name": "mask", "missing": 0.4}
SMALL = {
    "mlp": {"hidden": [8], "embedding": 4},
    "residual_mlp": {"width": 8, "blocks": 1, "embedding": 4, "gaussian": True},
    "unet": {
        "channels": [4, 8],
        "blocks": 1,
        "embedding": 8,
        "attention": {"1": 2},
        "dropout": 0.1,
    },
}
AUGMENT = {"flip": True, "hue": 0.1, "saturation": [0.9, 1.1], "shift": 1}

# azula's jvp loads TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.fixture(autouse=True)
def other(monkeypatch):
    monkeypatch.setattr(torch, "Generator", Stream)
    with OtherDevice() as mode:
        yield mode


def stream():
    return torch_generator(0, Stage.E_STEP, device=DEVICE)


def prior(network="unet", shape=IMAGE):
    denoiser = build_denoiser({"name": network, **SMALL[network]}, SCHEDULE, shape, seed=0)
    fitted = random_gaussian(shape, 2, torch.float32)
    return Prior(fitted, denoiser.eval().requires_grad_(False), {}).to(DEVICE)


def observed(count=6, spec=MASK, shape=IMAGE):
    return observe(random_gaussian(shape, 2), spec, count, 0.1)[0].to(DEVICE)


def on_device(*tensors):
    return all(x.device == DEVICE for x in tensors)


# The device itself


def test_tensors_of_two_devices_do_not_meet():
    there, here = torch.ones(2, 3, device=DEVICE), torch.ones(3)

    assert on_device(there, there + 1, there.T.contiguous(), there.new_zeros(2), here.to(there))
    assert on_device(torch.zeros_like(there), there * torch.tensor(2.0), there[torch.tensor([0])])
    assert not on_device(here, here.new_zeros(2), there.cpu(), there.to("cpu"), here.to(here))
    for mixed in (
        lambda: there + here,
        lambda: torch.where(there > 0, there, here),
        lambda: torch.cat((there[0], here)),
        lambda: torch.stack((there.sum(), here.sum())),
        lambda: here[there[0] > 0],
        lambda: torch.zeros(()).add_(there.sum()),
        lambda: torch.nn.functional.linear(there, here[None]),
        lambda: there.numpy(),
        lambda: there.normal_(generator=torch_generator(0, Stage.E_STEP)),
        lambda: torch.randn(2, generator=stream()),
    ):
        with pytest.raises(Misplaced):
            mixed()


def test_gradients_are_where_their_tensors_are():
    layer = torch.nn.Linear(3, 2).to(DEVICE)
    x = torch.ones(4, 3, device=DEVICE, requires_grad=True)

    y = layer(x)
    y.sum().backward()

    assert on_device(layer.weight, y, x.grad, layer.weight.grad)
    assert on_device(torch.autograd.grad(layer(x).sum(), x)[0])
    with pytest.raises(Misplaced):
        torch.autograd.grad(layer(x), x, torch.ones(4, 2))


# Operators


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_operators(spec, shape):
    operator = simulate(spec, shape, 4, torch.float32).to(DEVICE)
    x = torch.randn(4, *shape, device=DEVICE)
    rows = torch.tensor([2, 0], device=DEVICE)

    y = operator.forward(x)

    results = [y, operator.adjoint(y), operator.observed(), operator.together(), operator.dense()]
    part = Partial(operator, torch.rand(y.shape, device=DEVICE) < 0.5)
    for some in (operator[rows], operator[:2], part[rows], part[:2]):
        results += [some.forward(x[:2]), some.adjoint(y[:2]), some.observed(), some.together()]
    assert on_device(operator, part, *results)
    operator.check()


def test_an_operator_without_parameters():
    operator = Twice((3,), {}).to(DEVICE)

    for some in (operator, operator[:1]):
        assert on_device(some, some.observed(), some.together(), some.dense())


def test_an_operator_of_a_function():
    matrix = torch.randn(2, 3)

    operator = given(lambda x: x @ matrix.to(x.device).T, torch.zeros(4, 2).to(DEVICE), (3,))
    operator = operator.to(DEVICE)
    shown = where_shown(operator, torch.rand(4, 2).to(DEVICE) < 0.5)

    verify_operator(operator, "mine")
    x, y = torch.randn(4, 3).to(DEVICE), torch.randn(4, 2).to(DEVICE)
    for some in (operator, shown):
        assert on_device(some, some.observed(), some.forward(x), some.adjoint(y))
    with pytest.raises(DiemError, match="forward fails"):
        verify_operator(linear(lambda x: x @ matrix.T, (3,)).to(DEVICE), "mine")


# Posteriors


def test_gaussians(monkeypatch):
    fitted, given = prior().gaussian, observed()
    likelihood = (given.operator, given.y, given.sigma_y)

    x = fitted.sample(20, stream())

    results = [x, fitted.sample_posterior(*likelihood, stream())]
    results += [
        fitted.posterior_mean(*likelihood),
        fitted.denoiser(VPSchedule())(x, x[0, 0, 0, 0]).mean,
    ]
    for size in (gaussians.DENSE_SIZE, 0):
        monkeypatch.setattr(gaussians, "DENSE_SIZE", size)
        monkeypatch.setattr(gaussians, "COVARIANCE_SIZE", size)
        for made in (fit_to_observations(*likelihood, 2, 2, stream()), fit_to_samples(x, 2)):
            results += [made.mean, made.noise, made.factors]
    assert on_device(*results)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS.names)
def test_samplers(name):
    some, sampler = prior("mlp"), SAMPLERS.parse({"name": name, "steps": 2})

    assert on_device(sample_prior(some, 3, sampler, stream()))


@pytest.mark.slow
@pytest.mark.parametrize("name", COVARIANCES.names)
@pytest.mark.parametrize("limit", [None, 1.0])
def test_covariances(name, limit):
    given, some = observed(), prior()
    some.card[CARD_ERROR] = {"sigma": [10.0, 0.01], "error": [1.0, 1e-4]}
    sampler = PosteriorSampler(
        SAMPLERS.parse({"name": "ddpm", "steps": 2}),
        COVARIANCES.parse(name),
        iterations=2,
        limit=limit,
        batch=4,
    )
    likelihood = (given.operator, given.y, given.sigma_y)

    x = sampler(some, *likelihood, stream())
    again = sampler(some, *likelihood, stream(), start=x, sigma_start=1.0)

    kept = replace_contradicting(x, some, *likelihood, 1.5, stream())
    assert on_device(x, again, kept)
    if name != "tweedie":
        assert on_device(COVARIANCES.parse(name).variance(x.new_tensor(0.5), some.gaussian)(x))


@pytest.mark.parametrize("name", ENTRIES)
def test_methods(name):
    denoiser = HalvedDenoiser(prior().denoiser.backbone, VPSchedule()).eval()
    given = observed(3)

    x = restore(METHODS.parse(ENTRIES[name]), denoiser, Problem(given.operator, given.y, 0.1), 2, 0)

    assert {METHODS.entry(entry)["name"] for entry in ENTRIES.values()} == set(METHODS.names)
    assert on_device(x)


# Networks and training


@pytest.mark.parametrize("name", NETWORKS.names)
def test_networks(name):
    network = NETWORKS.parse({"name": name, **SMALL[name]}).build(IMAGE).to(DEVICE)
    x = torch.randn(3, *IMAGE, device=DEVICE)

    for t in (torch.zeros(3, device=DEVICE), torch.zeros(1, device=DEVICE)):
        y = network(x, t)
        y.sum().backward()
        assert on_device(y, *(p.grad for p in network.parameters()))


def test_augmentations():
    assert set(AUGMENT) == set(AUGMENTATIONS.names)
    x = torch.randn(4, 3, 6, 6, device=DEVICE)

    for changes in (*({key: value} for key, value in AUGMENT.items()), AUGMENT):
        assert on_device(augment(x, chosen(changes), stream()))


@pytest.mark.slow
@pytest.mark.parametrize("on_divergence", ["stop", "lower_rate"])
def test_training(on_divergence):
    some = prior(shape=(3, 4, 4))
    x = random_gaussian((3, 4, 4), 2, torch.float32).to(DEVICE).sample(20, stream())
    settings = Training(
        3, 8, 1e-3, augment=chosen({**AUGMENT, "shift": 1}), on_divergence=on_divergence
    )

    average, curve = train(some.denoiser.requires_grad_(True), x, x[:5], settings, seed=0)

    assert on_device(*average.parameters(), *some.denoiser.parameters())
    assert len(curve) == 1


# Numbers


class TwoLayers(torch.nn.Module):
    """Stands in for the Inception network."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(6, 144) / 255)

    def forward(self, x):
        y = x.float().flatten(1) @ self.weight.T
        return y[:, :4], y[:, 4:]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes what an evaluation reads, on the CPU, and returns it with its shape."""
    job = Made(tmp_path)
    shape = (1, 12, 12)
    truth = random_gaussian(shape, 3)
    splits = ("train", "validation", "test")
    parts = {split: observe(truth, MASK, 12, 0.1, i)[0] for i, split in enumerate(splits)}
    save_observations(tmp_path / "observations.h5", parts, "mask", {})
    x = truth.to(torch.float32).sample(170, torch.Generator()).numpy()
    write_hdf5(tmp_path / "clean.h5", {"test/x": x, "train/x": x}, {})
    made = {"sampler": "ddpm", "denoiser_evaluations": 3, "precision": "float32", "steps": 3}
    arrays = {"train/x": x, "train/index": np.arange(len(x))}
    write_hdf5(tmp_path / "samples.h5", arrays, made)
    Extractor(shape, 3, validation_accuracy=0.5).eval().save(tmp_path / "extractor")
    network = FeatureNetwork(TwoLayers().eval().to(DEVICE), "a network", "0123")
    found = {"extractor": str(tmp_path / "extractor")}
    for source, name in ((inception, "inception"), (dinov2, "dinov2")):
        monkeypatch.setattr(source, "load", lambda path, device: network)
        found[f"{name}_weights"] = "weights"
        found[f"{name}_reference"] = str(tmp_path / "reference")
    Reference.of(x, "train", network, 4 / 256).save(tmp_path / "reference")
    found |= {"clean": str(tmp_path / "clean.h5"), "samples": [str(tmp_path / "samples.h5")]}
    return job, found


@pytest.mark.slow
def test_evaluations(files):
    job, found = files
    metrics = [
        name
        for name, metric in METRICS.all().items()
        if "experiments" in metric.sections and "curve" not in metric.needs
    ]
    settings = {**SETTINGS, "metrics": metrics, "test_observations": 4, "samples": 170}
    work = Job(device=DEVICE)
    with job.observations() as file:
        some = job.prior().to(DEVICE)
        sampler = PosteriorSampler(SAMPLERS.parse({"name": "ddpm", "steps": 2}))
        evaluation = Evaluation(some, file, sampler, settings, {"name": "images"}, found, work)
        rows, arrays = evaluate(evaluation, {})
        floor = Prior(some.gaussian, None, {"lap": 0, "optimizer_steps": 0})
        some.card = {"lap": 1, "optimizer_steps": 1}
        task = Reconstruction(some, floor, file, found["clean"], settings, sampler, work)
        assert reconstruct(task, {})

    assert {row["metric"].split("_")[0] for row in rows} == {m.split("_")[0] for m in metrics}
    assert all(np.isfinite(row["value"]) for row in rows)
    assert "posterior/truth" in arrays


@pytest.mark.parametrize("name", [n for n, m in METRICS.all().items() if issubclass(m, Fidelity)])
def test_fidelities(name):
    x, truth = torch.randn(2, 3, 3, 32, 32, device=DEVICE)
    tool = None
    if name == "lpips":
        tool = object.__new__(Perceptual)
        tool.device = DEVICE
        tool.linear = [torch.rand(1, a.shape[0], 1, 1, device=DEVICE) for a in LAYERS]
        tool.network = {
            f"features.{a.number}.{k}": torch.randn(shape, device=DEVICE)
            for a in LAYERS
            for k, shape in (("weight", a.shape), ("bias", a.shape[:1]))
        }

    values = METRICS.find(name)().values(x, truth, tool=tool)

    assert torch.isfinite(values).all()


@pytest.mark.slow
def test_distances():
    a, b = torch.randn(2, 24, 5, device=DEVICE)
    curve = DATASETS.parse({"name": "manifold", "dimensions": 5}).curve(0, CURVE_POINTS)

    numbers = [sliced_wasserstein(a, b), sinkhorn_divergence(a, b), truncated_transport(a, b).cost]
    numbers.append(float(distance_to_manifold(a, curve).mean()))
    kept = torch.ones(24, 5, dtype=torch.bool, device=DEVICE)
    scores = crps(torch.stack((a, b), dim=1), a, kept)
    residuals = residual(a, b, 0.1)
    assert on_device(scores, residuals)
    numbers += residual_summary(residuals, kept).values()
    assert np.isfinite(numbers).all()


def test_priors_to_sample():
    some = Made.prior(Made("."))
    denoiser = PriorDenoiser(Prior(some.gaussian, some.denoiser, PRIOR_CARD)).to(DEVICE)
    given = observed(2, shape=(1, 12, 12))

    for x in (
        denoiser.sample(3, steps=2),
        denoiser.posterior(given.y, given.operator, 0.1, 2),
    ):
        assert on_device(x)


PRIOR_CARD = {
    "network": {"name": "residual_mlp", "width": 8, "blocks": 1, "embedding": 4},
    "schedule": SCHEDULE,
    "e_step": {"sampler": {"name": "ddpm", "steps": 2}, "block": 4, "repeats": 1},
}
