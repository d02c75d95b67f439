"""The networks: the paper's multilayer perceptron and U-Net, and a residual perceptron.

They know nothing of diffusion. A network maps a batch ``x`` of shape ``(B, *event)`` and a noise
conditioning variable ``t = log(sigma)`` of shape ``(B,)`` to a tensor of the shape of ``x``. Both
also take one ``t`` for the whole batch, of shape ``(1,)``, and then embed it only once.

Adding a network adds one class, whose first argument is the event shape, and one entry in
:data:`NETWORKS`.

References:
    Rozet et al., Learning Diffusion Priors from Observations by Expectation Maximization,
    NeurIPS 2024, https://arxiv.org/abs/2405.13712
"""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diem.errors import DiemError, nearest

__all__ = ["MLP", "NETWORKS", "ResidualMLP", "UNet", "build"]


def noise_embedding(t: Tensor, features: int) -> Tensor:
    r"""Returns cosine and sine features of the noise conditioning variable.

    .. math:: [\cos(\omega_i t), \sin(\omega_i t)]_i \quad \omega_i = 10^{-4 i / (n - 1)}

    The ``n = features / 2`` frequencies multiply ``t``: with ``log(sigma)`` between -7 and 5, the
    frequency 1 turns less than twice over the whole noise schedule and the lower ones tell its
    turns apart. Dividing by them instead would turn up to 1e4 times per unit of ``log(sigma)``.

    Arguments:
        t: The conditioning variable, of shape ``(B,)``.
        features: The even number of features.

    Returns:
        The features, of shape ``(B, features)`` and of the type of ``t``.
    """
    # Not a buffer: the frequencies keep the precision of t whatever the type of the weights is,
    # and a saved network holds parameters only.
    omega = torch.logspace(0, -4, features // 2, dtype=t.dtype, device=t.device)
    angle = torch.atleast_1d(t)[:, None] * omega
    return torch.cat((angle.cos(), angle.sin()), dim=1)


class MLP(nn.Module):
    """A multilayer perceptron, the network of the paper's low-dimensional manifold.

    The noise embedding is concatenated to the flattened input. Each hidden layer is a linear map,
    SiLU, and a layer normalization without parameters; a linear map follows.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int] = (256, 256, 256),
        embedding: int = 64,
    ):
        """Builds the network.

        Arguments:
            event_shape: The shape of one sample.
            hidden: The width of each hidden layer.
            embedding: The number of noise embedding features, even.

        Raises:
            DiemError: If an argument does not suit.
        """
        super().__init__()
        _check_integers("hidden", hidden)
        _check_embedding(embedding)

        size = math.prod(event_shape)
        self.embedding = embedding
        self.first = nn.Linear(size + embedding, hidden[0])
        self.layers = nn.ModuleList(
            nn.Linear(before, after)
            for before, after in zip(hidden, (*hidden[1:], size), strict=True)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the network.

        Arguments:
            x: The input, of shape ``(B, *event)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The output, of the shape of ``x``.
        """
        e = noise_embedding(t, self.embedding).to(x.dtype)

        # The first layer acts on the input and on the embedding apart: the same numbers as on
        # their concatenation, without building it, and without its gradient when only that of the
        # input is asked for.
        w = self.first.weight
        size = w.shape[1] - self.embedding
        h = F.linear(x.flatten(1), w[:, :size]) + F.linear(e, w[:, size:], self.first.bias)

        for layer in self.layers:
            h = F.silu(h)
            h = F.layer_norm(h, h.shape[1:])
            h = layer(h)

        return h.view_as(x)


class ResidualMLP(nn.Module):
    """A multilayer perceptron of residual blocks, for small images and vectors.

    The flattened input and the noise embedding are mapped to a common width and added; each block
    adds a layer normalization without parameters, a linear map, SiLU, and a linear map. It is not
    in the paper: at equal cost it learns small images far better than the paper's MLP does.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016),
        https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self, event_shape: Sequence[int], width: int = 256, blocks: int = 4, embedding: int = 64
    ):
        """Builds the network.

        Arguments:
            event_shape: The shape of one sample.
            width: The number of features of each layer.
            blocks: The number of residual blocks.
            embedding: The number of noise embedding features, even.

        Raises:
            DiemError: If an argument does not suit.
        """
        super().__init__()
        _check("width", width, _is_integer(width), "a positive integer")
        _check("blocks", blocks, _is_integer(blocks), "a positive integer")
        _check_embedding(embedding)

        size = math.prod(event_shape)
        self.embedding = embedding
        self.first = nn.Linear(size, width)
        self.noise = nn.Linear(embedding, width, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the network.

        Arguments:
            x: The input, of shape ``(B, *event)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The output, of the shape of ``x``.
        """
        h = self.first(x.flatten(1)) + self.noise(noise_embedding(t, self.embedding).to(x.dtype))
        for block in self.blocks:
            h = h + block(F.layer_norm(h, h.shape[1:]))
        h = F.silu(F.layer_norm(h, h.shape[1:]))
        return self.last(h).view_as(x)


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of each pixel, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes an image of shape ``(B, C, H, W)``."""
        # The moved axis is the innermost one in memory if x is channels-last: no copy is made.
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


class SelfAttention(nn.Module):
    """Multi-head self-attention between the pixels of an image."""

    def __init__(self, channels: int, heads: int):
        """Builds the layer.

        Arguments:
            channels: The number of channels.
            heads: The number of heads, a divisor of the number of channels.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluates the layer on an image of shape ``(B, C, H, W)``."""
        pixels = x.movedim(1, -1)  # (B, H, W, C)
        qkv = self.qkv(pixels).flatten(1, 2).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, H W, C / heads) each
        y = _attention(q, k, v)
        y = y.transpose(1, 2).reshape(pixels.shape)
        return self.out(y).movedim(-1, 1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns scaled dot-product attention of ``(B, heads, pixels, features)`` each."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # PyTorch's fused kernel for CPUs is several times slower than its products in this type.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return scores.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class ModulatedResidual(nn.Module):
    r"""A residual branch that is modulated by the noise embedding.

    A small MLP maps the embedding to three numbers per channel, :math:`a`, :math:`b` and
    :math:`c`, with which

    .. math:: y = \mathrm{block}((a + 1) \, x + b), \quad
        \mathrm{out} = \frac{x + c \, y}{\sqrt{1 + c^2}}

    so that the variance is kept if ``x`` and ``y`` are uncorrelated and have the same variance.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018),
        https://arxiv.org/abs/1709.07871
    """

    def __init__(self, block: nn.Module, channels: int, embedding: int):
        """Builds the branch.

        Arguments:
            block: A module that keeps the shape of its input.
            channels: The number of channels.
            embedding: The number of noise embedding features.
        """
        super().__init__()
        self.block = block
        self.modulation = nn.Sequential(
            nn.Linear(embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, 3 * channels),
        )
        # Nearly the identity at first, which lets a deep network train, but not exactly: at c = 0
        # no gradient would reach the block.
        with torch.no_grad():
            self.modulation[-1].weight.mul_(1e-2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Evaluates the branch.

        Arguments:
            x: The image, of shape ``(B, C, H, W)``.
            e: The noise embedding, of shape ``(B, embedding)`` or ``(1, embedding)``.

        Returns:
            The image, of the shape of ``x``.
        """
        a, b, c = self.modulation(e)[:, :, None, None].chunk(3, dim=1)
        y = self.block((a + 1) * x + b)
        return (x + c * y) * torch.rsqrt(1 + c * c)


class UNet(nn.Module):
    """A U-Net for images, the network of the paper's CIFAR-10 and MRI experiments.

    Each level has as many modulated residual blocks on the way down as on the way up, each
    followed by a modulated self-attention where asked for. A strided convolution leads one level
    down, nearest-neighbour upsampling one level up; there, a convolution takes the concatenation
    with the same level's last image on the way down. Space-to-depth makes the channels out of
    patches if ``patch`` is larger than 1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: Sequence[int] = (128, 256, 384),
        blocks: int | Sequence[int] = 5,
        kernel: int = 3,
        embedding: int = 256,
        dropout: float = 0.1,
        attention: Mapping[int | str, int] | None = None,
        patch: int = 1,
    ):
        """Builds the network.

        Arguments:
            event_shape: The shape ``(C, H, W)`` of one image. The network is not bound to its
                height and width.
            channels: The number of channels of each level, the finest first.
            blocks: The number of residual blocks of each level, or one number for all.
            kernel: The odd size of the convolutions' kernels.
            embedding: The number of noise embedding features, even.
            dropout: The probability of dropout in the residual blocks, in training mode only.
            attention: The number of attention heads by level, from 0; other levels have no
                attention. The levels may be strings, as JSON has no other keys.
            patch: The height and width of the patches that become one pixel of the finest level.

        Raises:
            DiemError: If an argument does not suit.
        """
        super().__init__()
        if len(event_shape) != 3:
            raise DiemError(
                "network.name: 'unet' needs images of shape (channels, height, width), "
                f"not samples of shape {tuple(event_shape)}"
            )
        _check_integers("channels", channels)
        levels = len(channels)
        if _is_integer(blocks):
            blocks = (blocks,) * levels
        _check_integers("blocks", blocks, length=levels)
        _check("kernel", kernel, _is_integer(kernel) and kernel % 2 == 1, "an odd positive integer")
        _check_embedding(embedding)
        _check("dropout", dropout, _is_probability(dropout), "a number from 0 to less than 1")
        _check("patch", patch, _is_integer(patch), "a positive integer")
        heads = _attention_heads(attention, channels)

        self.embedding = embedding
        self.patch = patch
        self.divisor = patch * 2 ** (levels - 1)
        self._check_size(*event_shape[1:])

        def conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2)

        def stage(level: int) -> nn.ModuleList:
            c = channels[level]
            modules = nn.ModuleList()
            for _ in range(blocks[level]):
                block = nn.Sequential(
                    ChannelNorm(), conv(c, c), nn.SiLU(), nn.Dropout(dropout), conv(c, c)
                )
                modules.append(ModulatedResidual(block, c, embedding))
                if level in heads:
                    block = nn.Sequential(ChannelNorm(), SelfAttention(c, heads[level]))
                    modules.append(ModulatedResidual(block, c, embedding))
            return modules

        pixels = event_shape[0] * patch**2
        steps = list(itertools.pairwise(channels))  # (finer, coarser)
        self.first = conv(pixels, channels[0])
        self.down = nn.ModuleList(stage(level) for level in range(levels))
        self.coarsen = nn.ModuleList(
            nn.Sequential(conv(fine, coarse, stride=2), ChannelNorm()) for fine, coarse in steps
        )
        self.refine = nn.ModuleList(
            nn.Sequential(ChannelNorm(), nn.Upsample(scale_factor=2, mode="nearest")) for _ in steps
        )
        self.merge = nn.ModuleList(conv(fine + coarse, fine) for fine, coarse in steps)
        self.up = nn.ModuleList(stage(level) for level in range(levels))
        self.last = nn.Conv2d(channels[0], pixels, 1)

    def _check_size(self, height: int, width: int):
        if height % self.divisor or width % self.divisor:
            raise DiemError(
                "network.channels and network.patch need images whose height and width are "
                f"divisible by {self.divisor}, patch * 2**(levels - 1), not {height} x {width}"
            )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the network.

        Arguments:
            x: The images, of shape ``(B, C, H, W)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The images, of the shape of ``x``.

        Raises:
            DiemError: If the height or the width is not divisible by ``patch * 2**(levels - 1)``.
        """
        self._check_size(*x.shape[2:])
        e = noise_embedding(t, self.embedding).to(x.dtype)
        h = self.first(F.pixel_unshuffle(x, self.patch))

        skips = []
        for level, stage in enumerate(self.down):
            if level > 0:
                skips.append(h)
                h = self.coarsen[level - 1](h)
            for block in stage:
                h = block(h, e)

        for level in reversed(range(len(self.up))):
            for block in self.up[level]:
                h = block(h, e)
            if level > 0:
                h = torch.cat((skips[level - 1], self.refine[level - 1](h)), dim=1)
                h = self.merge[level - 1](h)

        return F.pixel_shuffle(self.last(h), self.patch)


NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": MLP,
    "residual_mlp": ResidualMLP,
    "unet": UNet,
}


def build(spec: Mapping[str, Any], event_shape: Sequence[int]) -> nn.Module:
    """Builds a network from an entry of the configuration.

    The initial weights come from PyTorch's global generator.

    Arguments:
        spec: The ``name`` of the network and its arguments, for instance
            ``{"name": "mlp", "hidden": [256, 256, 256], "embedding": 64}``. Arguments that are
            left out have the defaults of the class.
        event_shape: The shape of one sample.

    Returns:
        The network.

    Raises:
        DiemError: If the name or a key is unknown, or a value does not suit.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if name is None:
        raise DiemError(f"network.name is missing (known: {', '.join(sorted(NETWORKS))}).")
    if name not in list(NETWORKS):
        raise DiemError(f"network.name: {name!r} is unknown{nearest(name, NETWORKS)}.")

    network = NETWORKS[name]
    known = list(inspect.signature(network).parameters)[1:]
    for key in arguments:
        if key not in known:
            raise DiemError(
                f"network.{key} is unknown to the network {name!r}{nearest(key, known)}."
            )

    return network(tuple(event_shape), **arguments)


def _is_integer(value: object) -> bool:
    """Tells whether a value is a positive integer; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _check(key: str, value: object, suits: bool, what: str):
    if not suits:
        raise DiemError(f"network.{key} must be {what}, not {value!r}")


def _check_integers(key: str, value: object, length: int | None = None):
    suits = isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_integer, value))
    if length is None:
        _check(key, value, suits, "a list of positive integers")
    else:
        _check(
            key,
            value,
            suits and len(value) == length,
            f"a positive integer or a list of {length} of them, one per level",
        )


def _check_embedding(value: object):
    _check("embedding", value, _is_integer(value) and value % 2 == 0, "an even positive integer")


def _attention_heads(attention: object, channels: Sequence[int]) -> dict[int, int]:
    """Returns the number of heads by level, as integers."""
    if attention is None:
        return {}
    _check("attention", attention, isinstance(attention, Mapping), "a mapping of level to heads")

    heads = {}
    for level, number in attention.items():
        valid = str(level) in map(str, range(len(channels)))
        _check("attention", attention, valid, f"by level, from 0 to {len(channels) - 1}")
        suits = _is_integer(number) and channels[int(level)] % number == 0
        _check(
            f"attention.{level}",
            number,
            suits,
            f"a divisor of the level's {channels[int(level)]} channels",
        )
        heads[int(level)] = number
    return heads
