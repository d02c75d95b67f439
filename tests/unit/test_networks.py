import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diem.errors import DiemError
from diem.networks.base import (
    MLP,
    NETWORKS,
    ChannelNorm,
    ModulatedResidual,
    SelfAttention,
    UNet,
    build,
    noise_embedding,
)

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
    assert count(MLP((5,), hidden=(256, 256, 256), embedding=64)) == 150_789


@pytest.mark.parametrize("blocks", [5, [5, 5, 5]])
def test_parameters_of_the_cifar_network(blocks):
    with torch.device("meta"):
        network = build(CIFAR | {"blocks": blocks}, (3, 32, 32))
    assert count(network) == pytest.approx(57.56e6, rel=0.01)


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
        network = UNet(
            (3, 16, 16), (4, 8, 12), blocks=(1, 2, 3), attention={key(i): 2 for i in levels}
        )
    assert attention_levels(network.down) == levels
    assert attention_levels(network.up) == levels
    for level, stage in enumerate(network.down):
        assert len(stage) == (level + 1) * (2 if level in levels else 1)


@pytest.mark.parametrize("attention", [None, {0: 2}])
def test_attention_sees_the_whole_image(attention):
    spec = SMALL | {"channels": [4], "attention": attention}
    network, x, t = make(spec, (1, 16, 16), batch=1)
    x = x.requires_grad_()
    (g,) = torch.autograd.grad(network(x, t)[0, 0, 0, 0], x)
    assert g[0, 0, 0, 0] != 0
    assert (g[0, 0, -1, -1] != 0) == (attention is not None)


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


@pytest.mark.parametrize(("spec", "shape"), CASES[2:])
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
    assert not any(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_state_is_the_parameters(spec, shape):
    network, *_ = make(spec, shape)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_another_network_is_one_entry(monkeypatch):
    class Toy(nn.Module):
        def __init__(self, event_shape, width=1):
            super().__init__()
            self.event_shape = event_shape
            self.width = width

    monkeypatch.setitem(NETWORKS, "toy", Toy)
    network = build({"name": "toy", "width": 3}, [5])
    assert (network.event_shape, network.width) == ((5,), 3)


def test_build_leaves_the_entry_alone():
    spec = {"name": "mlp", "hidden": [4]}
    build(spec, (5,))
    assert spec == {"name": "mlp", "hidden": [4]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"network\.name is missing \(known: mlp, residual_mlp, unet\)"),
        ({"name": "U-Net"}, r"network\.name: 'U-Net' is unknown \(did you mean 'unet'\?\)"),
        ({"name": "transformer"}, r"network\.name: .*known: mlp, residual_mlp, unet"),
        ({"name": ["mlp"]}, r"network\.name: \['mlp'\] is unknown"),
        ({"name": "mlp", "hiden": [4]}, r"network\.hiden .*did you mean 'hidden'\?"),
        ({"name": "mlp", "channels": [4]}, r"network\.channels .*known: embedding, hidden"),
        ({"name": "unet", "event_shape": [3]}, r"network\.event_shape is unknown"),
        ({"name": "mlp", "hidden": 256}, r"network\.hidden must be .*, not 256"),
        ({"name": "mlp", "hidden": []}, r"network\.hidden must be"),
        ({"name": "mlp", "hidden": [4, 0]}, r"network\.hidden must be"),
        ({"name": "mlp", "hidden": [4, True]}, r"network\.hidden must be"),
        ({"name": "mlp", "embedding": 7}, r"network\.embedding must be an even"),
        ({"name": "unet", "channels": ["128"]}, r"network\.channels must be"),
        ({"name": "unet", "blocks": [5, 5]}, r"network\.blocks must be .* list of 3"),
        ({"name": "unet", "blocks": 0}, r"network\.blocks must be"),
        ({"name": "unet", "kernel": 2}, r"network\.kernel must be an odd"),
        ({"name": "unet", "embedding": "256"}, r"network\.embedding must be"),
        ({"name": "unet", "dropout": 1}, r"network\.dropout must be"),
        ({"name": "unet", "dropout": None}, r"network\.dropout must be"),
        ({"name": "unet", "patch": 0}, r"network\.patch must be"),
        ({"name": "unet", "patch": 3}, r"network\.patch .*divisible by 12"),
        ({"name": "unet", "attention": 4}, r"network\.attention must be a mapping"),
        ({"name": "unet", "attention": {3: 4}}, r"network\.attention must .*0 to 2"),
        ({"name": "unet", "attention": {"-1": 4}}, r"network\.attention must .*0 to 2"),
        ({"name": "unet", "attention": {"1": 3}}, r"network\.attention\.1 must be a divisor .*256"),
        ({"name": "unet", "attention": {1: "4"}}, r"network\.attention\.1 must be a divisor"),
    ],
)
def test_build_errors(spec, message):
    with pytest.raises(DiemError, match=message) as error:
        build(spec, (5,) if spec.get("name") == "mlp" else (3, 32, 32))
    assert "\n" not in str(error.value)


def test_unet_needs_images():
    with pytest.raises(DiemError, match=r"network\.name: 'unet' needs images.*\(5,\)"):
        build({"name": "unet"}, (5,))
