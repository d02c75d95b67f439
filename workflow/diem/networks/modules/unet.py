"""The paper's U-Net."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diem.networks.modules.embedding import noise_embedding
from diem.networks.unet import UNet as Options
from diem.networks.unet import check_size

__all__ = ["ChannelNorm", "ModulatedResidual", "SelfAttention", "UNet", "attention"]


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of each pixel, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes images of shape ``(B, C, H, W)``, or series of shape ``(B, C, L)``."""
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
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluates the layer on images ``(B, C, H, W)``, or series ``(B, C, L)``."""
        pixels = x.movedim(1, -1)  # (B, H, W, C)
        qkv = self.qkv(pixels).flatten(1, -2).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, H W, C / heads) each
        y = attention(q, k, v)
        y = y.transpose(1, 2).reshape(pixels.shape)
        return self.out(y).movedim(-1, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns scaled dot-product attention of ``(B, heads, pixels, features)`` each."""
    slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
    unordered = q.device.type == "cuda" and q.dtype == torch.float32
    if slow or unordered:
        # PyTorch's fused kernel for CPUs is several times slower than its products in this type,
        # and the gradient of the one for GPUs in single precision has no fixed order of sums.
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
        first, last = nn.Linear(embedding, embedding), nn.Linear(embedding, 3 * channels)
        self.modulation = nn.Sequential(first, nn.SiLU(), last)
        # Nearly the identity at first, which lets a deep network train, but not exactly: at c = 0
        # no gradient would reach the block. The factor is that of the authors' `priors/nn.py`.
        with torch.no_grad():
            last.weight.mul_(1e-1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Evaluates the branch.

        Arguments:
            x: The image, of shape ``(B, C, H, W)``.
            e: The noise embedding, of shape ``(B, embedding)`` or ``(1, embedding)``.

        Returns:
            The image, of the shape of ``x``.
        """
        each = self.modulation(e)
        a, b, c = each.reshape(*each.shape, *(1,) * (x.ndim - 2)).chunk(3, dim=1)
        y = self.block((a + 1) * x + b)
        return (x + c * y) * torch.rsqrt(1 + c * c)


class Stage(nn.ModuleList):
    """Modulated residual branches, one after another."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Evaluates the branches on an image and a noise embedding."""
        for branch in self:
            x = branch(x, e)
        return x


class UNet(nn.Module):
    """A U-Net for images, the network of the paper's CIFAR-10 and MRI experiments, or for series.

    Each level has as many modulated residual blocks on the way down as on the way up, each
    followed by a modulated self-attention where asked for. A strided convolution leads one level
    down, nearest-neighbour upsampling one level up; there, a convolution takes the concatenation
    with the same level's last image on the way down. Space-to-depth makes the channels out of
    patches if ``patch`` is larger than 1.
    """

    def __init__(self, shape: Sequence[int], options: Options):
        """Builds the network, which is not bound to a height and width, or a length.

        Arguments:
            shape: The shape of an image, ``(channels, height, width)``, or of a series,
                ``(channels, length)``.
            options: The network's options.
        """
        super().__init__()
        self.dimensions = len(shape) - 1
        convolution = nn.Conv1d if self.dimensions == 1 else nn.Conv2d
        channels, kernel = options.channels, options.kernel
        embedding, self.patch = options.embedding, options.patch
        self.embedding, self.divisor = embedding, options.divisor
        blocks, levels = options.blocks_by_level, len(channels)
        heads = {int(level): number for level, number in options.attention.items()}

        def conv(before: int, after: int, stride: int = 1) -> nn.Module:
            return convolution(before, after, kernel, stride=stride, padding=kernel // 2)

        def stage(level: int) -> Stage:
            c = channels[level]
            branches = Stage()
            for _ in range(blocks[level]):
                block = nn.Sequential(
                    ChannelNorm(), conv(c, c), nn.SiLU(), nn.Dropout(options.dropout), conv(c, c)
                )
                branches.append(ModulatedResidual(block, c, embedding))
                if level in heads:
                    block = nn.Sequential(ChannelNorm(), SelfAttention(c, heads[level]))
                    branches.append(ModulatedResidual(block, c, embedding))
            return branches

        pixels = shape[0] * self.patch**self.dimensions
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
        self.last = convolution(channels[0], pixels, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):  # the authors' layers begin without
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the network.

        Arguments:
            x: The images, of shape ``(B, C, H, W)``, or series, ``(B, C, L)`` or ``(B, L)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The images, or series, of the shape of ``x``.

        Raises:
            DiemError: If a length is not divisible by ``patch * 2**(levels - 1)``.
        """
        shape = x.shape
        if x.ndim == 2:
            x = x[:, None]
        check_size(x.shape[2:], self.divisor)
        e = noise_embedding(t, self.embedding).to(x.dtype)
        h = self.first(self._patched(x))

        skips = []
        for level, stage in enumerate(self.down):
            if level > 0:
                skips.append(h)
                h = self.coarsen[level - 1](h)
            h = stage(h, e)

        for level in reversed(range(len(self.up))):
            h = self.up[level](h, e)
            if level > 0:
                h = torch.cat((skips[level - 1], self.refine[level - 1](h)), dim=1)
                h = self.merge[level - 1](h)

        return self._unpatched(self.last(h)).reshape(shape)

    def _patched(self, x: Tensor) -> Tensor:
        """Returns images, or series, whose patches have become channels."""
        if self.dimensions == 2:
            return F.pixel_unshuffle(x, self.patch)
        return x.unflatten(-1, (-1, self.patch)).movedim(-1, 2).flatten(1, 2)

    def _unpatched(self, x: Tensor) -> Tensor:
        if self.dimensions == 2:
            return F.pixel_shuffle(x, self.patch)
        return x.unflatten(1, (-1, self.patch)).movedim(2, -1).flatten(-2)
