"""The paper's U-Net, for images and series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from diem.components import Count, Even, Number, option
from diem.errors import DiemError
from diem.networks.base import Network

if TYPE_CHECKING:
    from torch import nn

__all__ = ["UNet", "check_size"]


def check_size(size: Sequence[int], divisor: int) -> None:
    """Raises a :class:`DiemError` unless the lengths of an image, or a series, are divisible."""
    if any(length % divisor for length in size):
        what = "images whose height and width are" if len(size) == 2 else "series whose length is"
        raise DiemError(
            f"network.channels and network.patch need {what} divisible by {divisor},"
            f" patch * 2**(levels - 1), not {' x '.join(map(str, size))}."
        )


def _as_image(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a sample with its channels first, of which a plain series has one."""
    return (1, *event_shape) if len(event_shape) == 1 else tuple(event_shape)


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Level = Annotated[str, BeforeValidator(_text), Field(pattern="^[0-9]+$")]


class UNet(Network):
    """A U-Net for images, the network of the paper's CIFAR-10 and MRI experiments.

    It serves series as well, of shape ``(length,)`` or ``(channels, length)``, by convolutions
    along them; of a table, whose columns have no order, it makes no sense.
    """

    name = "unet"

    channels: list[Count] = option(
        [128, 256, 384],
        "the number of channels of each level, the finest first",
        paper="CIFAR-10: [128, 256, 384]; MRI: [128, 256, 384, 512]",
        min_length=1,
    )
    blocks: Count | list[Count] = option(
        5,
        "the number of residual blocks of each level, or one number for all",
        paper="CIFAR-10: 5; MRI: 3",
    )
    kernel: Count = option(3, "the size of the convolutions' kernels, odd")
    embedding: Even = option(256, "the number of noise-embedding features")
    dropout: Annotated[Number, Field(ge=0, lt=1)] = option(
        0.1, "the probability of dropout in the residual blocks, while training only"
    )
    attention: dict[Level, Count] = option(
        {},
        'the number of attention heads by level, for example `{"1": 4}`; other levels have none',
        paper='CIFAR-10: {"1": 4}; MRI: {"3": 4}',
    )
    patch: Count = option(
        1, "the size of the patches that become channels", paper="CIFAR-10: 1; MRI: 4"
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        levels = len(self.channels)
        if len(self.blocks_by_level) != levels:
            raise ValueError(
                f"{{place}}.blocks is {self.blocks}, and must be a number or a list of {levels},"
                " one for each of the channels"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"{{place}}.kernel is {self.kernel}, and must be odd")
        for level, heads in self.attention.items():
            if int(level) >= levels:
                raise ValueError(
                    f"{{place}}.attention names the level {level}, where levels are from 0 to"
                    f" {levels - 1}"
                )
            if self.channels[int(level)] % heads:
                raise ValueError(
                    f"{{place}}.attention.{level} is {heads}, and must be a divisor of the level's"
                    f" {self.channels[int(level)]} channels"
                )
        return self

    @property
    def blocks_by_level(self) -> list[int]:
        """The number of residual blocks of each level."""
        if isinstance(self.blocks, int):
            return [self.blocks] * len(self.channels)
        return self.blocks

    @property
    def divisor(self) -> int:
        """What the height and width of an image, or the length of a series, are multiples of."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def check(self, event_shape: Sequence[int]) -> None:
        if len(event_shape) > 3:
            raise DiemError(
                "network.name: 'unet' needs images of shape (channels, height, width), or series of"
                f" shape (channels, length) or (length,), not samples of shape {tuple(event_shape)}"
                " (what can: residual_mlp, mlp, a network of your own)."
            )
        check_size(_as_image(event_shape)[1:], self.divisor)

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        from diem.networks.modules.unet import UNet as Module

        self.check(event_shape)
        return Module(_as_image(event_shape), self)

    def multiplications(self, event_shape: Sequence[int]) -> float:
        first, *size = _as_image(event_shape)
        channels, kernel, patch = self.channels, self.kernel ** len(size), self.patch ** len(size)
        edge, pixels = first * patch, math.prod(size) / patch
        total = pixels * edge * channels[0] * (kernel + 1)
        for level, (c, count) in enumerate(zip(channels, self.blocks_by_level, strict=True)):
            area = pixels / 2 ** (len(size) * level)
            total += 2 * count * area * 2 * kernel * c**2
            if str(level) in self.attention:
                total += 2 * count * area * (4 * c**2 + 2 * area * c)
            if level > 0:
                finer = channels[level - 1]
                above = 2 ** len(size) * area
                total += area * kernel * finer * c + above * kernel * finer * (finer + c)
        return total

    def activations(self, event_shape: Sequence[int]) -> float:
        _, *size = _as_image(event_shape)
        pixels = math.prod(size) / self.patch ** len(size)
        total = 2.0 * math.prod(event_shape)
        for level, (c, count) in enumerate(zip(self.channels, self.blocks_by_level, strict=True)):
            branches = 1 + (str(level) in self.attention)
            total += branches * 2 * count * (pixels / 2 ** (len(size) * level)) * 8 * c
        return total
