import itertools
import json
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import random_gaussian
from torch import nn

from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.errors import DiemError
from diem.networks import NETWORKS
from diem.networks.counting import counted
from diem.networks.modules.embedding import noise_embedding
from diem.networks.modules.unet import ChannelNorm, ModulatedResidual, SelfAttention
from diem.networks.runtime import autocast


def build(spec, shape):
    return NETWORKS.parse(spec).build(shape)


SMALL = {"name": "unet", "channels": [4, 8], "blocks": 1, "embedding": 16}
CIFAR = {
    "name": "unet",
    "channels": [128, 256, 384],
    "blocks": 5,
    "attention": {"1": 4},
    "embedding": 256,
}
MRI = {
    "name": "unet",
    "channels": [128, 256, 384, 512],
    "blocks": 3,
    "attention": {"3": 4},
    "patch": 4,
}

# One small network of each kind: (entry of the configuration, event shape)
CASES = [
    pytest.param({"name": "mlp", "hidden": [32, 16], "embedding": 8}, (5,), id="mlp"),
    pytest.param({"name": "mlp", "hidden": [32]}, (1, 4, 4), id="mlp-image"),
    pytest.param(SMALL, (3, 8, 8), id="unet"),
    pytest.param(SMALL | {"attention": {1: 2}}, (3, 8, 8), id="unet-attention"),
    pytest.param(SMALL | {"patch": 2, "attention": {0: 4}}, (1, 8, 12), id="unet-patch"),
    pytest.param(SMALL, (16,), id="unet-series"),
    pytest.param(SMALL | {"patch": 2, "attention": {1: 2}}, (3, 16), id="unet-series-patch"),
    pytest.param({"name": "residual_mlp", "width": 8, "blocks": 1}, (5,), id="residual_mlp"),
]


def make(spec, shape, batch=3, dtype=torch.float64):
    """Returns a network in evaluation mode, an input and conditioning variables."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(spec, shape).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *shape, generator=generator, dtype=dtype)
    t = torch.linspace(-5, 2, batch, dtype=dtype)
    return network, x, t


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def attention_levels(stages):
    return [
        level
        for level, stage in enumerate(stages)
        if any(isinstance(module, SelfAttention) for module in stage.modules())
    ]


@pytest.mark.parametrize(("spec", "shape"), CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_shape(spec, shape, batch):
    network, x, t = make(spec, shape, batch, torch.float32)
    y = network(x, t)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()


def test_parameters_of_the_manifold_network():
    assert count(build({"name": "mlp"}, (5,))) == 150_789
    spec = {"name": "mlp", "hidden": [256, 256, 256], "embedding": 64}
    assert count(build(spec, (5,))) == 150_789


def reference_count(channels, blocks, heads, pixels, embedding=256):
    """Counts the parameters of the authors' U-Net, layer by layer as in their priors/nn.py."""

    def linear(before, after):
        return (before + 1) * after

    def conv(before, after):
        return (9 * before + 1) * after

    total = conv(pixels, channels[0]) + linear(channels[0], pixels)
    total += sum(conv(*pair) for pair in itertools.pairwise(channels))
    total += sum(conv(fine + coarse, fine) for fine, coarse in itertools.pairwise(channels))
    for level, c in enumerate(channels):
        modulation = linear(embedding, embedding) + linear(embedding, 3 * c)
        residual = modulation + 2 * conv(c, c)
        attention = modulation + 3 * linear(c, c) + c * c  # no bias at the output
        total += 2 * blocks * (residual + (attention if level in heads else 0))
    return total


@pytest.mark.parametrize("blocks", [5, [5, 5, 5]])
def test_parameters_of_the_cifar_network(blocks):
    with torch.device("meta"):
        network = build(CIFAR | {"blocks": blocks}, (3, 32, 32))
    assert count(network) == reference_count([128, 256, 384], 5, {1}, 3)


def test_parameters_of_the_mri_network():
    with torch.device("meta"):
        network = build(MRI, (1, 320, 320))
    assert count(network) == reference_count([128, 256, 384, 512], 3, {3}, 16)


def test_networks_of_the_paper_begin_as_the_authors_do():
    unet = build(SMALL | {"attention": {1: 2}}, (3, 8, 8))
    for network in (unet, build({"name": "mlp"}, (5,))):
        assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))
    last = [m.modulation[-1] for m in unet.modules() if isinstance(m, ModulatedResidual)]
    for layer in last:  # a tenth of a linear layer's uniform weights
        bound = 0.1 / math.sqrt(layer.in_features)
        assert 0.9 * bound < layer.weight.abs().max() <= bound


@pytest.mark.slow
def test_mri_network_acts_on_patches():
    with torch.device("meta"):
        network = build(MRI, (1, 320, 320))
        x = torch.empty(2, 1, 320, 320)
        y = network(x, torch.empty(2))
    assert network.first.in_channels == network.last.out_channels == 16
    assert attention_levels(network.down) == attention_levels(network.up) == [3]
    assert y.shape == x.shape


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (24, 40)])
@pytest.mark.parametrize("patch", [1, 2])
def test_unet_takes_any_divisible_size(size, patch):
    spec = SMALL | {"channels": [4, 4, 4], "patch": patch, "attention": {2: 2}}
    network, *_ = make(spec, (2, 16, 16), dtype=torch.float32)
    x = torch.randn(2, 2, *size)
    assert network(x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize("size", [(12, 16), (16, 12), (17, 16)])
def test_unet_refuses_other_sizes(size):
    spec = SMALL | {"channels": [4, 4, 4], "patch": 2}
    with pytest.raises(DiemError, match=f"divisible by 8.*not {size[0]} x {size[1]}"):
        build(spec, (1, *size))
    network = build(spec, (1, 16, 16))
    with pytest.raises(DiemError, match=f"divisible by 8.*not {size[0]} x {size[1]}"):
        network(torch.zeros(1, 1, *size), torch.zeros(1))


@pytest.mark.parametrize("levels", [[], [0], [1], [0, 2]])
@pytest.mark.parametrize("key", [int, str])
def test_attention_is_at_the_given_levels(levels, key):
    with torch.device("meta"):
        spec = {"name": "unet", "channels": [4, 8, 12], "blocks": [1, 2, 3]}
        network = build(spec | {"attention": {key(i): 2 for i in levels}}, (3, 16, 16))
    assert attention_levels(network.down) == levels
    assert attention_levels(network.up) == levels
    for level, stage in enumerate(network.down):
        assert len(stage) == (level + 1) * (2 if level in levels else 1)


@pytest.mark.parametrize("attention", [{}, {0: 2}])
def test_attention_sees_the_whole_image(attention):
    spec = SMALL | {"channels": [4], "attention": attention}
    network, x, t = make(spec, (1, 16, 16), batch=1)
    x = x.requires_grad_()
    (g,) = torch.autograd.grad(network(x, t)[0, 0, 0, 0], x)
    assert g[0, 0, 0, 0] != 0
    assert (g[0, 0, -1, -1] != 0) == bool(attention)


def test_attention_matches_its_definition():
    torch.manual_seed(0)
    layer = SelfAttention(6, heads=3).double()
    x = torch.randn(2, 6, 2, 4, dtype=torch.float64)
    pixels = x.flatten(2).mT
    q, k, v = layer.qkv(pixels).chunk(3, dim=-1)
    heads = [
        torch.softmax(a @ b.mT / math.sqrt(2), dim=-1) @ c
        for a, b, c in zip(q.split(2, -1), k.split(2, -1), v.split(2, -1), strict=True)
    ]
    expected = layer.out(torch.cat(heads, dim=-1)).mT.unflatten(2, (2, 4))
    torch.testing.assert_close(layer(x), expected)


def test_mlp_matches_its_definition():
    network, x, t = make({"name": "mlp", "hidden": [16, 8], "embedding": 4}, (5,))
    h = network.first(torch.cat((x, noise_embedding(t, 4)), dim=1))
    for layer in network.layers:
        h = F.silu(h)
        h = (h - h.mean(1, True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        h = layer(h)
    torch.testing.assert_close(network(x, t), h)


AROUND = {"name": "residual_mlp", "width": 8, "blocks": 1, "gaussian": True}


@pytest.mark.parametrize("shape", [(6,), (2, 1, 3)])
def test_a_network_that_begins_with_a_gaussian_denoises_exactly(shape):
    gaussian = random_gaussian(shape, 2)
    schedule = {"sigma_min": 0.01, "sigma_max": 20.0}
    denoiser = build_denoiser(AROUND, schedule, shape, seed=0).double()

    denoiser.backbone.gaussian.begin_with(gaussian.mean.flatten(), gaussian.dense())

    exact = gaussian.denoiser(denoiser.schedule)
    for t in torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]:
        x_t = gaussian.mean + denoiser.schedule.sigma(t) * torch.randn(4, *shape).double()
        torch.testing.assert_close(denoiser(x_t, t).mean, exact(x_t, t).mean)


def test_a_gaussian_is_exact_in_bfloat16_too():
    gaussian = random_gaussian((6,), 2, torch.float32)
    denoiser = build_denoiser(AROUND, {"sigma_min": 0.01, "sigma_max": 20.0}, (6,), seed=0)
    denoiser.backbone.gaussian.begin_with(gaussian.mean, gaussian.dense())
    x_t, t = gaussian.mean + torch.randn(64, 6), torch.tensor([0.3])

    with autocast("bfloat16", x_t.device):
        half = denoiser(x_t, t).mean

    exact = gaussian.denoiser(denoiser.schedule)(x_t, t).mean
    torch.testing.assert_close(half, exact, rtol=1e-4, atol=1e-4)


def test_a_gaussian_is_no_weight_and_is_kept_by_files(tmp_path):
    gaussian = random_gaussian((6,), 2, torch.float32)
    schedule = {"sigma_min": 0.01, "sigma_max": 20.0}
    denoiser = build_denoiser(AROUND, schedule, (6,), seed=0)
    plain = build_denoiser(AROUND | {"gaussian": False}, schedule, (6,), seed=0)
    denoiser.backbone.gaussian.begin_with(gaussian.mean, gaussian.dense())
    assert count(denoiser) == count(plain)
    assert plain.backbone.gaussian is None

    card = {"network": AROUND, "schedule": schedule}
    Prior(gaussian, denoiser, card).save(tmp_path / "prior")
    loaded = read_prior(tmp_path / "prior").denoiser

    x, t = torch.randn(3, 6), torch.tensor([0.5])
    assert torch.equal(loaded(x, t).mean, denoiser(x, t).mean)


def test_a_gaussian_of_too_many_values_is_refused():
    entry = NETWORKS.parse(AROUND)
    entry.check((4096,))
    for refuse in (entry.check, entry.build):
        with pytest.raises(DiemError, match=r"gaussian is true.* \(4097,\) have more than 4,096"):
            refuse((4097,))


def test_channel_norm():
    x = 3 + 5 * torch.randn(2, 16, 3, 4, dtype=torch.float64)
    y = ChannelNorm()(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.mean(1), torch.zeros_like(y[:, 0]))
    torch.testing.assert_close(
        y.var(1, correction=0), torch.ones_like(y[:, 0]), rtol=1e-4, atol=0.0
    )


def test_modulated_residual():
    a, b, c = torch.randn(3, 4, dtype=torch.float64)
    block = nn.Conv2d(4, 4, 3, padding=1)
    module = ModulatedResidual(block, channels=4, embedding=8).double()
    with torch.no_grad():
        module.modulation[-1].weight.zero_()
        module.modulation[-1].bias.copy_(torch.cat((a, b, c)))

    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    a, b, c = (v.reshape(4, 1, 1) for v in (a, b, c))
    expected = (x + c * block((a + 1) * x + b)) / (1 + c**2).sqrt()
    for batch in (1, 2):
        y = module(x, torch.randn(batch, 8, dtype=torch.float64))
        torch.testing.assert_close(y, expected)


def test_modulated_residual_is_nearly_the_identity_at_first():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 8, 8)
    block = nn.Sequential(ChannelNorm(), nn.Conv2d(32, 32, 3, padding=1))
    y = ModulatedResidual(block, 32, 16)(x, torch.randn(2, 16))
    assert 0 < (y - x).square().mean() < 0.05


def test_noise_embedding():
    t = torch.tensor([-6.0, 0.5], dtype=torch.float64)
    e = noise_embedding(t, 6)
    omega = torch.tensor([1, 1e-2, 1e-4], dtype=torch.float64)
    expected = torch.cat(((t[:, None] * omega).cos(), (t[:, None] * omega).sin()), dim=1)
    torch.testing.assert_close(e, expected)


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_noise_conditioning_matters(spec, shape):
    network, x, _ = make(spec, shape, batch=1)
    low, high = (network(x, torch.full((1,), v, dtype=x.dtype)) for v in (-4.0, 1.0))
    assert not torch.allclose(low, high, rtol=1e-4)


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_one_conditioning_variable_for_the_batch(spec, shape):
    network, x, t = make(spec, shape)
    expected = network(x, t[:1].expand(len(x)))
    torch.testing.assert_close(network(x, t[:1]), expected)
    torch.testing.assert_close(network(x, t[0]), expected)  # as azula's samplers give it


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_samples_do_not_depend_on_their_neighbours(spec, shape):
    network, x, t = make(spec, shape)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(network(x, t), alone)


def test_dropout_in_training_mode_only():
    network, x, t = make(SMALL | {"dropout": 0.5}, (3, 8, 8))
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.allclose(network(x, t), network(x, t))

    network, x, t = make(SMALL | {"dropout": 0}, (3, 8, 8))
    y = network(x, t)
    assert torch.equal(network.train()(x, t), y)


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_gradients_reach_every_parameter(spec, shape):
    network, x, t = make(spec, shape)
    network(x, t).square().mean().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_skips_and_coarser_levels_are_both_merged():
    network, x, t = make(SMALL | {"channels": [4, 6, 8]}, (3, 8, 8))
    network(x, t).square().mean().backward()
    for merge, channels in zip(network.merge, (4 + 6, 6 + 8), strict=True):
        used = merge.weight.grad.abs().sum(dim=(0, 2, 3)) > 0
        assert used.tolist() == [True] * channels


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_vector_jacobian_products_match_finite_differences(spec, shape, memory_format):
    network, x, t = make(spec, shape)
    network.requires_grad_(False)
    if x.ndim == 4:
        x = x.contiguous(memory_format=memory_format)
        network = network.to(memory_format=memory_format)
    u = torch.randn_like(x)

    # Several products with one graph, as conjugate gradients need
    leaf = x.clone().requires_grad_()
    y = network(leaf, t)
    h = 1e-5
    with torch.no_grad():
        directional = (network(x + h * u, t) - network(x - h * u, t)) / (2 * h)
    for _ in range(2):
        v = torch.randn_like(y)
        (g,) = torch.autograd.grad(y, leaf, v, retain_graph=True)
        torch.testing.assert_close((g * u).sum(), (v * directional).sum(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("spec", "shape"), CASES[2:5])
def test_channels_last(spec, shape):
    network, x, t = make(spec, shape)
    y = network(x, t)
    network = network.to(memory_format=torch.channels_last)

    # Every layer keeps the memory format, so none copies.
    kept = []

    def hook(module, inputs, output):
        kept.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in network.modules():
        if isinstance(module, ChannelNorm | SelfAttention | ModulatedResidual | nn.Upsample):
            module.register_forward_hook(hook)
    z = network(x.contiguous(memory_format=torch.channels_last), t)

    assert kept
    assert all(kept)
    torch.testing.assert_close(z, y)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "shape"), [CASES[0], CASES[3]])
def test_compiles_to_one_graph(spec, shape):
    network, x, t = make(spec, shape)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t), network(x, t))


def test_low_precision_weights_keep_the_precision_of_the_noise():
    network, x, t = make(SMALL, (3, 8, 8), dtype=torch.float32)
    y = network(x, t)
    z = network.bfloat16()(x.bfloat16(), t)
    assert z.dtype == torch.bfloat16
    assert (z.float() - y).square().mean() < 1e-3 * y.square().mean()


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_initial_weights_depend_on_the_global_generator(spec, shape):
    states = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            states.append(build(spec, shape).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    same = [key for key in first if torch.equal(first[key], other[key])]
    assert all(key.endswith("bias") for key in same)  # which begin at zero


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_state_is_the_parameters(spec, shape):
    network, *_ = make(spec, shape)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_build_leaves_the_entry_alone():
    spec = {"name": "mlp", "hidden": [4]}
    build(spec, (5,))
    assert spec == {"name": "mlp", "hidden": [4]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"network lacks the key 'name'"),
        (
            {"name": "U-Net"},
            r"network\.name is 'U-Net', which is .*did you mean 'unet'\?",
        ),
        ({"name": "transformer"}, r"network\.name .*known: mlp, residual_mlp, unet"),
        ({"name": ["mlp"]}, r"network\.name is \['mlp'\], where a value of type string"),
        ({"name": "mlp", "hiden": [4]}, r"network\.hiden .*did you mean 'hidden'\?"),
        ({"name": "mlp", "channels": [4]}, r"network\.channels .*known: embedding, hidden"),
        ({"name": "unet", "event_shape": [3]}, r"network\.event_shape is unknown"),
        ({"name": "mlp", "hidden": 256}, r"network\.hidden is 256, where a value of type array"),
        ({"name": "mlp", "hidden": []}, r"network\.hidden is \[\], and must be a list of at least"),
        ({"name": "mlp", "hidden": [4, 0]}, r"network\.hidden\.1 is 0, and must be at least 1"),
        ({"name": "mlp", "hidden": [4, True]}, r"network\.hidden\.1 is True, .*type integer"),
        ({"name": "mlp", "embedding": 7}, r"network\.embedding is 7, and must be a multiple of 2"),
        ({"name": "unet", "channels": ["128"]}, r"network\.channels\.0 is '128', .*type integer"),
        ({"name": "unet", "blocks": [5, 5]}, r"network\.blocks is .*, and must be .* list of 3"),
        ({"name": "unet", "blocks": 0}, r"network\.blocks is 0, and must be at least 1"),
        ({"name": "unet", "kernel": 2}, r"network\.kernel is 2, and must be odd"),
        ({"name": "unet", "embedding": "256"}, r"network\.embedding is '256', .*type integer"),
        ({"name": "unet", "dropout": 1}, r"network\.dropout is 1, and must be less than 1"),
        ({"name": "unet", "dropout": None}, r"network\.dropout is None, .*type number"),
        ({"name": "unet", "patch": 0}, r"network\.patch is 0, and must be at least 1"),
        ({"name": "unet", "patch": 3}, r"network\.patch .*divisible by 12"),
        ({"name": "unet", "attention": 4}, r"network\.attention is 4, .*type object"),
        ({"name": "unet", "attention": {3: 4}}, r"network\.attention names .* 3, .* from 0 to 2"),
        ({"name": "unet", "attention": {"-1": 4}}, r"network\.attention.*-1"),
        ({"name": "unet", "attention": {"1": 3}}, r"network\.attention\.1 .* a divisor .*256"),
        ({"name": "unet", "attention": {1: "4"}}, r"network\.attention.1 is '4', .*type integer"),
    ],
)
def test_build_errors(spec, message):
    with pytest.raises(DiemError, match=message) as error:
        build(spec, (5,) if spec.get("name") == "mlp" else (3, 32, 32))
    assert "\n" not in str(error.value)


def test_unet_needs_images_or_series():
    with pytest.raises(DiemError, match=r"network\.name: 'unet' needs images.*\(1, 2, 4, 4\)"):
        build({"name": "unet"}, (1, 2, 4, 4))
    with pytest.raises(DiemError, match=r"series whose length is divisible by 4.* not 5\."):
        build({"name": "unet"}, (5,))


def test_a_series_is_seen_as_an_image_that_is_the_same_in_every_row():
    torch.manual_seed(0)
    one = SMALL | {"channels": [8], "dropout": 0.0}
    series, image = build(one, (2, 16)).eval(), build(one, (2, 4, 16)).eval()
    state = series.state_dict()
    for key, value in image.state_dict().items():
        if value.ndim == 4:  # of a kernel, the row in the middle is that of the series
            wide = torch.zeros_like(value)
            wide[:, :, value.shape[2] // 2] = state[key]
            state[key] = wide
    image.load_state_dict(state)
    x, t = torch.randn(3, 2, 16), torch.zeros(3)

    rows = image(x[:, :, None].expand(3, 2, 4, 16), t)

    torch.testing.assert_close(rows, series(x, t)[:, :, None].expand_as(rows))


# Networks of a user's own

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, event_shape, width: int, hidden: tuple[int, ...] = (8, 4), act=nn.SiLU(),
                 bias=True):
        super().__init__()
        (size,) = event_shape
        self.width, self.hidden = width, hidden
        self.first = nn.Linear(size + 1, width, bias=bias)
        self.act = act
        self.last = nn.Linear(width, size)

    def forward(self, x, t):
        self.told = t
        return self.last(self.act(self.first(torch.cat((x, t[:, None]), dim=1))))

class Unshaped(nn.Module):
    pass

class Shrinking(Net):
    def forward(self, x, t):
        return x[:, 1:]

class Failing(Net):
    def __init__(self, event_shape):
        raise RuntimeError("no such luck")

class Copying(nn.Module):
    def __init__(self, event_shape, copy=1):
        super().__init__()

class Named(nn.Module):
    def __init__(self, event_shape, *, name="net"):
        super().__init__()

class Impossible(Net):
    def forward(self, x, t):
        return super().forward(x, t) if x.sum() > 1 else super().forward(x, t)

class NoNetwork:
    pass

class Masked(Net):
    def __init__(self, event_shape):
        super().__init__(event_shape, 4)
        self.register_buffer("mask", torch.full((3,), -torch.inf))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Returns the import path of a class in a module of the user's."""
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    return lambda name: f"{module}:{name}"


def test_any_module_is_a_network(own):
    entry = NETWORKS.entry({"name": own("Net"), "width": 16})
    assert entry == {
        "name": own("Net"),
        "width": 16,
        "hidden": [8, 4],
        "bias": True,
        "conditioning": "log_sigma",
    }
    assert json.loads(json.dumps(entry)) == entry
    network = build(entry, [5])
    assert (network.module.width, network.module.hidden) == (16, (8, 4))
    x, t = torch.randn(3, 5), torch.tensor([0.5])
    for given in (t, t[0], t.expand(3)):
        assert network(x, given).shape == (3, 5)
        assert network.module.told.tolist() == [0.5] * 3
    network = build(entry | {"conditioning": "sigma"}, (5,))
    network(x, t)
    torch.testing.assert_close(network.module.told, t.exp().expand(3))
    assert NETWORKS.find(own("Net")) is NETWORKS.find(own("Net"))


@pytest.mark.slow
def test_the_cost_of_any_module_is_counted(own):
    for name in ("Net", "Impossible"):  # the second looks at values, which meta tensors have not
        network = NETWORKS.parse({"name": own(name), "width": 16})
        assert network.multiplications((5,)) == 6 * 16 + 16 * 5
        # The input with its noise, what goes into the activation, and what comes out.
        assert network.activations((5,)) == 6 + 16 + 16


@pytest.mark.parametrize(("spec", "shape"), [CASES[0], CASES[3], CASES[6]])
def test_the_declared_cost_is_near_the_counted(spec, shape):
    network = NETWORKS.parse(spec)
    declared, found = network.multiplications(shape), counted(network, shape).multiplications
    assert declared == pytest.approx(found, rel=0.4)
    values = network.activations(shape), counted(network, shape).activations
    assert values[0] == pytest.approx(values[1], rel=0.7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Net", {}, "network lacks the key 'width'"),
        ("Net", {"width": "wide"}, "network.width is 'wide', where a value of type integer is"),
        ("Net", {"width": math.nan}, "network.width is nan, where a finite number is needed"),
        ("Net", {"width": 3, "depth": 2}, "network.depth is unknown"),
        ("Net", {"width": 3, "conditioning": "time"}, "network.conditioning is 'time'"),
        ("Net", {"width": -3}, "cannot be built"),
        ("Failing", {}, "cannot be built .RuntimeError: no such luck"),
        ("Unshaped", {}, "takes no event shape"),
        ("Copying", {}, "the argument 'copy' .* another name"),
        ("Named", {}, "the argument 'name' .* another name"),
        ("Masked", {}, "'mask' holds values that are not finite, .* persistent=False"),
        ("NoNetwork", {}, "no subclass of torch.nn.Module or diem.networks.base.Network"),
        ("Missing", {}, "no subclass of torch.nn.Module"),
    ],
)
def test_what_is_wrong_with_a_module_is_told(own, name, options, message):
    with pytest.raises(DiemError, match=message) as error:
        build({"name": own(name), **options}, (5,))
    assert "\n" not in str(error.value)


def test_a_module_keeps_the_shape(own):
    network = build({"name": own("Shrinking"), "width": 3}, (5,))
    with pytest.raises(DiemError, match=r"returns the shape \(2, 4\) for x of shape \(2, 5\)"):
        network(torch.zeros(2, 5), torch.zeros(1))


def test_a_prior_with_a_module_is_saved_and_loaded(own, tmp_path, monkeypatch):
    network = NETWORKS.entry({"name": own("Net"), "width": 16})
    schedule = {"sigma_min": 1e-2, "sigma_max": 1e1}
    denoiser = build_denoiser(network, schedule, (5,), 0)
    path = tmp_path / "prior.safetensors"
    gaussian = random_gaussian((5,), 2, torch.float32)
    Prior(gaussian, denoiser, {"network": network, "schedule": schedule}).save(path)

    loaded = read_prior(path, network, (5,))
    x, t = torch.randn(3, 5), torch.tensor(0.3)
    assert torch.equal(loaded.denoiser(x, t).mean, denoiser.eval()(x, t).mean)

    module = own("Net").partition(":")[0]
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.delenv("DIEM_PATH")
    with pytest.raises(DiemError) as error:
        read_prior(path)
    assert f"{path}: network '{module}:Net' cannot be imported" in str(error.value)
    assert "\n" not in str(error.value)


def test_declarations_import_no_torch():
    code = """
import sys
from diem.networks import NETWORKS
from diem.data.sets import DATASETS
for kind in (NETWORKS, DATASETS):
    kind.all()
NETWORKS.parse("unet").multiplications((3, 32, 32))
print(*({"torch", "sklearn", "h5py", "PIL", "azula"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("", "")
