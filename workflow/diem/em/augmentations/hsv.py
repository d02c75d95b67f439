"""Changes of colours in HSV, which are made at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diem.em.augmentations.base import Augmentation, uniform
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["HSVChange", "adjust_hsv"]


class HSVChange(Augmentation):
    """A random change of hue or saturation; one of one's own says by how much."""

    colour = True

    @property
    def turns(self) -> tuple[float, float]:
        """The least and the most that is added to the hue, in turns."""
        return 0.0, 0.0

    @property
    def factor(self) -> tuple[float, float]:
        """The least and the largest factor of the saturation."""
        return 1.0, 1.0

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        return HSVChange.together([self], x, generator)

    @staticmethod
    def together(  # type: ignore[override]  # of all kinds of changes in HSV
        changes: Sequence[HSVChange], x: Tensor, generator: Generator
    ) -> Tensor:
        """Makes all changes in one conversion to HSV, which draws both numbers of each image."""
        turns = [sum(ends) for ends in zip(*(c.turns for c in changes), strict=True)]
        factor = [math.prod(ends) for ends in zip(*(c.factor for c in changes), strict=True)]
        turned = uniform(x, turns[0], turns[1], generator)
        scaled = uniform(x, factor[0], factor[1], generator)
        return 4 * adjust_hsv((x + 2) / 4, turned, scaled) - 2


def adjust_hsv(x: Tensor, turns: Tensor | float, factor: Tensor | float) -> Tensor:
    r"""Changes hue and saturation of colours, in HSV.

    With the value :math:`v = \max(r, g, b)`, the chroma :math:`c = v - \min(r, g, b)` and the hue
    :math:`h \in [0, 6)`, a channel is :math:`v - c \max(0, \min(k, 4 - k, 1))` with
    :math:`k = (n + h) \bmod 6` and :math:`n = 5, 3, 1`. The saturation is :math:`c / v`, and does
    not grow beyond 1. Colours outside of :math:`[0, 1]` keep their value :math:`v` too.

    References:
        | Color Gamut Transform Pairs (Smith, 1978)
        | https://doi.org/10.1145/965139.807361

    Arguments:
        x: The colours in [0, 1], of shape ``(batch, 3, height, width)``.
        turns: What is added to the hue, in turns, of a shape that broadcasts to
            ``(batch, height, width)``.
        factor: What the saturation is multiplied by, of such a shape.
    """
    value, highest = x.max(dim=1)
    chroma = value - x.amin(dim=1)
    red, green, blue = x.unbind(dim=1)
    difference = torch.stack((green - blue, blue - red, red - green)).gather(0, highest[None])[0]
    hue = 2 * highest + difference / chroma.where(chroma > 0, 1) + 6 * turns

    chroma = torch.minimum(chroma * factor, torch.maximum(chroma, value))
    n = torch.tensor((5, 3, 1), device=x.device)[:, None, None]
    k = (n + hue[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)
