"""How networks are run: precision, memory format, compilation, and batches in parts."""

import copy
import shutil

import pytest
import torch
import torch._inductor.config as inductor
import torch.nn.functional as F
from helpers import random_gaussian, simulate
from torch import nn

from diem.components import validated
from diem.diffusion.covariances import CARD_ERROR, COVARIANCES
from diem.diffusion.options import Engine
from diem.diffusion.posterior import Guidance, PosteriorDenoiser
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.samplers.pc import PC
from diem.em.training import Training, train
from diem.errors import DiemError
from diem.networks import runtime as engine
from diem.networks.modules.unet import attention

SCHEDULE = {"sigma_min": 1e-2, "sigma_max": 1e1}
MLP = {"name": "mlp", "hidden": [32, 32], "embedding": 8}
UNET = {
    "name": "unet",
    "channels": [8, 16],
    "blocks": 1,
    "embedding": 8,
    "attention": {"1": 2},
    "dropout": 0.0,
}
PROBLEMS = [
    pytest.param(MLP, {"name": "projection", "rows": 2}, (5,), id="mlp"),
    pytest.param(UNET, {"name": "mask", "missing": 0.4}, (1, 8, 8), id="unet"),
]
problems = pytest.mark.parametrize(("network", "spec", "shape"), PROBLEMS)

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++)"
)


def make(network, spec, shape, batch=6):
    """Returns a prior with random weights, operators, and observations."""
    denoiser = build_denoiser(network, SCHEDULE, shape, 0).eval().requires_grad_(False)
    prior = Prior(random_gaussian(shape, 2, torch.float32), denoiser, {})
    operator = simulate(spec, shape, batch, torch.float32)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *shape, generator=generator)
    return prior, operator, operator.forward(x) + 0.1 * operator.observed()


def sample(prior, operator, y, sigma_y=0.1, steps=3, **options):
    sampler = PosteriorSampler(DDPM(steps=steps), iterations=2, **options)
    return sampler(prior, operator, y, sigma_y, torch.Generator().manual_seed(2))


def error(x, reference):
    return float((x - reference).detach().norm() / reference.norm())


# Precision


def test_explicit_attention_isattention():
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(attention(q, k, v), expected)

    leaves = [a.bfloat16().requires_grad_() for a in (q, k, v)]
    out = attention(*leaves)
    assert out.dtype == torch.bfloat16
    assert error(out.float(), expected) < 0.01

    # Its gradients too.
    u = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    singles = [a.clone().requires_grad_() for a in (q, k, v)]
    grads = torch.autograd.grad(F.scaled_dot_product_attention(*singles), singles, u)
    for g, h in zip(torch.autograd.grad(out, leaves, u.bfloat16()), grads, strict=True):
        assert error(g.float(), h) < 0.02


def posterior_mean(denoiser, operator, y, sigma, iterations, precision="float32"):
    shape = (len(y), *operator.event_shape)
    x_t = sigma * torch.randn(shape, generator=torch.Generator().manual_seed(3))
    t = torch.log(torch.tensor([sigma / 1e-2])) / torch.log(torch.tensor(1e3))
    guidance = Guidance(iterations=iterations)
    posterior = PosteriorDenoiser(denoiser, operator, y, 0.1, guidance, precision=precision)
    return posterior(x_t, t).mean


@pytest.mark.parametrize("sigma", [0.02, 0.3, 3.0])
@problems
def test_bfloat16_is_near_float32(network, spec, shape, sigma):
    prior, operator, y = make(network, spec, shape)
    problem = (prior.denoiser, operator, y, sigma)
    single = posterior_mean(*problem, iterations=1)
    half = posterior_mean(*problem, iterations=1, precision="bfloat16")
    assert half.dtype == torch.float32
    assert 0 < error(half, single) < 0.05

    # At high noise the Jacobian of an untrained network is far from positive: a second iteration
    # amplifies any rounding: as much as that of the weights to bfloat16's eight bits.
    single = posterior_mean(*problem, iterations=2)
    half = posterior_mean(*problem, iterations=2, precision="bfloat16")
    amplified = []
    for seed in range(3):
        rounded, generator = copy.deepcopy(prior.denoiser), torch.Generator().manual_seed(seed)
        for weight in rounded.parameters():
            weight.mul_(1 + 2**-9 * torch.randn(weight.shape, generator=generator))
        amplified.append(error(posterior_mean(rounded, *problem[1:], iterations=2), single))
    assert 0 < error(half, single) < max(0.05, 5 * max(amplified))


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'float16'"):
        engine.autocast("float16", torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("network", [MLP, UNET], ids=["mlp", "unet"])
def test_training_in_bfloat16_keeps_single_precision_weights(network):
    shape = (1, 8, 8)
    x = random_gaussian(shape, 2, torch.float32).sample(64, torch.Generator().manual_seed(0))
    curves = {}
    for precision in engine.PRECISIONS:
        denoiser = build_denoiser(network, SCHEDULE, shape, 0)
        training = Training(20, 16, 1e-3, precision=precision, channels_last=True)
        average, curve = train(denoiser, x, x[:16], training, 0)
        assert {w.dtype for w in average.parameters()} == {torch.float32}
        curves[precision] = curve[-1]["loss"]
    single, half = curves.values()
    assert half != single
    assert half == pytest.approx(single, rel=0.05)


# Memory format


def test_channels_last_gives_the_same_samples(tmp_path):
    prior, operator, y = make(*PROBLEMS[1].values)
    expected = sample(prior, operator, y)
    x = sample(prior, operator, y, channels_last=True)
    kernel = prior.denoiser.backbone.first.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)

    card = {"network": UNET, "schedule": SCHEDULE}
    Prior(prior.gaussian, prior.denoiser, card).save(tmp_path / "prior.safetensors")
    loaded = read_prior(tmp_path / "prior.safetensors")
    assert torch.equal(loaded.denoiser.backbone.first.weight, kernel)


# Batches in parts


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("limit", [None, 0.5])
@problems
def test_parts_of_a_block_give_the_numbers_of_the_block(network, spec, shape, limit, own):
    prior, operator, y = make(network, spec, shape)
    sigma_y = torch.linspace(0.1, 0.2, len(y)).reshape(-1, *(1,) * (y.ndim - 1)) if own else 0.1
    expected = sample(prior, operator, y, sigma_y, limit=limit)
    for batch in (1, 4, 100):
        x = sample(prior, operator, y, sigma_y, limit=limit, batch=batch)
        torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)


def test_parts_bound_what_the_network_sees():
    prior, operator, y = make(*PROBLEMS[0].values)
    sizes = []
    prior.denoiser.backbone.register_forward_hook(lambda _, x, y: sizes.append(len(y)))
    sample(prior, operator[:1], y, steps=2, batch=4)
    assert sizes == [4, 2] * 3


# Compilation


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_gives_the_same_numbers():
    prior, operator, y = make(*PROBLEMS[0].values)
    expected = sample(prior, operator, y)
    x = sample(prior, operator, y, compile=True)
    assert prior.denoiser.backbone._compiled_call_impl is not None
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@problems
def test_networks_compile_whole_in_both_halves_of_a_lap(network, spec, shape, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", **options)
    )
    prior, operator, y = make(network, spec, shape)
    expected = sample(prior, operator, y, batch=4)
    x = sample(prior, operator, y, batch=4, compile=True)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)

    data = prior.gaussian.sample(32, torch.Generator().manual_seed(0))
    losses = []
    for compiled in (False, True):
        denoiser = build_denoiser(network, SCHEDULE, shape, 0)
        average, curve = train(denoiser, data, data, Training(4, 16, 1e-3, compile=compiled), 0)
        losses.append(curve[-1]["loss"])
        assert average.backbone._compiled_call_impl is None  # it is saved and evaluated as it is
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


class Overwritten(nn.Module):
    """A network of which each call spoils what the call before gave, as CUDA graphs may."""

    def __init__(self, network):
        super().__init__()
        self.network, self.given, self.calls = network, [], 0
        for weight in network.parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(lambda w: self.given.append(w.grad))

    @torch.no_grad()
    def spoil(self):
        for tensor in self.given:
            tensor.fill_(torch.nan)
        self.given = []
        self.calls += 1

    def forward(self, x, t):
        self.spoil()
        y = self.network(x, t)
        self.given += [y.detach()]  # an alias: autograd, too, is told that it has changed
        if x.requires_grad:
            x.register_hook(lambda gradient: self.given.append(gradient.detach()))
        return y


def overwritten(denoiser):
    denoiser.backbone = Overwritten(denoiser.backbone)
    return denoiser.backbone


@pytest.mark.parametrize("covariance", COVARIANCES.names)
@pytest.mark.parametrize("sampler", [DDPM(steps=3), PC(steps=3)], ids=["ddpm", "pc"])
def test_no_step_reads_what_the_network_gave_before(covariance, sampler):
    prior, operator, y = make(*PROBLEMS[0].values)
    prior.card[CARD_ERROR] = {"sigma": [1e1, 1e-2], "error": [1.0, 0.01]}
    chosen = COVARIANCES.parse(covariance, "covariance")
    posterior = PosteriorSampler(sampler, chosen, iterations=2, batch=4)
    expected = posterior(prior, operator, y, 0.1, torch.Generator().manual_seed(2))
    network = overwritten(prior.denoiser)
    x = posterior(prior, operator, y, 0.1, torch.Generator().manual_seed(2))
    assert network.calls == 2 * sampler.evaluations
    assert torch.equal(x, expected)


@problems
def test_no_optimizer_step_reads_what_the_network_gave_before(network, spec, shape):
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(0))
    plain, spoilt = (build_denoiser(network, SCHEDULE, shape, 0) for _ in range(2))
    calls = overwritten(spoilt)
    averages = [train(denoiser, x, x, Training(5, 16, 1e-3), 0)[0] for denoiser in (plain, spoilt)]
    assert calls.calls == 5
    weights, others = (list(average.parameters()) for average in averages)
    assert all(map(torch.equal, weights, others))


def test_each_call_of_cuda_graphs_begins_a_step(monkeypatch):
    prior, operator, y = make(*PROBLEMS[0].values)
    expected, begun = sample(prior, operator, y), []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))
    monkeypatch.setattr(inductor.triton, "cudagraph_or_error", False)
    prior.denoiser.backbone.compile(backend="eager")
    engine._begin_steps(prior.denoiser.backbone)
    assert torch.equal(sample(prior, operator, y), expected)
    assert len(begun) == DDPM(steps=3).evaluations
    assert inductor.triton.cudagraph_or_error  # what cannot be recorded is an error


def test_cuda_graphs_without_a_gpu_are_refused():
    prior, operator, y = make(*PROBLEMS[0].values)
    why = "compile is reduce-overhead, and CUDA graphs need a GPU: set it to true"
    with pytest.raises(DiemError, match=f"e_step.{why}"):
        sample(prior, operator, y, compile="reduce-overhead")
    with pytest.raises(DiemError, match=f"m_step.{why}"):
        train(prior.denoiser, y, y, Training(1, 2, 1e-3, compile="reduce-overhead"), 0)


def test_another_way_to_compile_is_refused():
    with pytest.raises(DiemError, match="'graphs', where a value of type boolean or 'reduce-over"):
        validated(Engine, {"compile": "graphs"}, "e_step")


def test_what_cannot_be_compiled_is_an_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found.\nMore.")

    monkeypatch.setattr(torch, "compile", lambda function, **options: refuse)
    prior, operator, y = make(*PROBLEMS[0].values)
    with pytest.raises(DiemError, match=r"e_step.compile is true, .* C\+\+ compiler found.$"):
        sample(prior, operator, y, compile=True)
    with pytest.raises(DiemError, match=r"m_step\.compile is true"):
        train(prior.denoiser, y, y, Training(1, 2, 1e-3, compile=True), 0)
