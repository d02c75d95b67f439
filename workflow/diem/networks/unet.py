"""The paper's U-Net, for images."""

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
    """Raises a :class:`DiemError` unless the height and the width of an image are divisible."""
    height, width = size
    if height % divisor or width % divisor:
        raise DiemError(
            "network.channels and network.patch need images whose height and width are"
            f" divisible by {divisor}, patch * 2**(levels - 1), not {height} x {width}."
        )


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Level = Annotated[str, BeforeValidator(_text), Field(pattern="^[0-9]+$")]


class UNet(Network):
    """A U-Net for images, the network of the paper's CIFAR-10 and MRI experiments."""

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
        """What the height and the width of an image are multiples of."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def check(self, event_shape: Sequence[int]) -> None:
        if len(event_shape) != 3:
            raise DiemError(
                "network.name: 'unet' needs images of shape (channels, height, width),"
                f" not samples of shape {tuple(event_shape)}."
            )
        check_size(event_shape[1:], self.divisor)

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        from diem.networks.modules.unet import UNet as Module

        self.check(event_shape)
        return Module(event_shape[0], self)

    def multiplications(self, event_shape: Sequence[int]) -> float:
        channels, kernel = self.channels, self.kernel**2
        edge, pixels = event_shape[0] * self.patch**2, math.prod(event_shape[1:]) / self.patch**2
        total = pixels * edge * channels[0] * (kernel + 1)
        for level, (c, count) in enumerate(zip(channels, self.blocks_by_level, strict=True)):
            area = pixels / 4**level
            total += 2 * count * area * 2 * kernel * c**2
            if str(level) in self.attention:
                total += 2 * count * area * (4 * c**2 + 2 * area * c)
            if level > 0:
                finer = channels[level - 1]
                total += area * kernel * finer * c + 4 * area * kernel * finer * (finer + c)
        return total

    def activations(self, event_shape: Sequence[int]) -> float:
        pixels, total = math.prod(event_shape[1:]) / self.patch**2, 2.0 * math.prod(event_shape)
        for level, (c, count) in enumerate(zip(self.channels, self.blocks_by_level, strict=True)):
            branches = 1 + (str(level) in self.attention)
            total += branches * 2 * count * (pixels / 4**level) * 8 * c
        return total
