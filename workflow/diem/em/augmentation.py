r"""Random changes of training images that leave their distribution almost as it is.

Every image draws its own. Images are in :math:`[-2, 2]`; posterior samples may leave this range by
a little, and are not clipped.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diem.config.resolve import HSV
from diem.errors import DiemError

__all__ = ["augment", "check"]


def check(settings: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Raises a :class:`DiemError` if data of a shape cannot be augmented as a config asks."""
    for name in settings:
        if len(shape) != 3 or (name in HSV and shape[0] != 3):
            kind = "colour images (3, H, W)" if name in HSV else "images (C, H, W)"
            raise DiemError(f"m_step.augment.{name} needs {kind}, and the data have shape {shape}.")
    if settings.get("shift", 0) >= min(shape[-2:]):
        raise DiemError(
            f"m_step.augment.shift is {settings['shift']} pixels, which is too far for images of"
            f" shape {shape}."
        )


def augment(x: Tensor, settings: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Changes images at random.

    Arguments:
        x: The images, of shape ``(batch, channel, height, width)``.
        settings: Which changes to make: ``flip`` (from left to right, one image in two), ``shift``
            (the most pixels by which an image moves along each axis; what comes in is its
            reflection), ``hue`` (the most turns of the circle of hues) and ``saturation`` (the
            lowest and the highest factor of HSV's saturation). They come in this order.
        generator: The random stream, on the images' device.

    Returns:
        The changed images.
    """

    def uniform(low: float, high: float) -> Tensor:
        u = torch.rand(len(x), 1, 1, generator=generator, device=x.device, dtype=x.dtype)
        return low + (high - low) * u

    if settings.get("flip"):
        x = torch.where(uniform(0, 1)[..., None] < 0.5, x.flip(-1), x)
    if most := settings.get("shift"):
        x = _shifted(x, most, generator)
    if HSV & settings.keys():
        turns, factor = settings.get("hue", 0.0), settings.get("saturation", (1.0, 1.0))
        x = 4 * adjust_hsv((x + 2) / 4, uniform(-turns, turns), uniform(*factor)) - 2
    return x


def _shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Moves each image by up to so many pixels along each axis."""
    count, _, height, width = x.shape
    move = torch.randint(2 * most + 1, (2, count, 1), generator=generator, device=x.device)
    rows, columns = (
        start + torch.arange(size, device=x.device)
        for start, size in zip(move, (height, width), strict=True)
    )
    x = F.pad(x, (most,) * 4, mode="reflect")
    image = torch.arange(count, device=x.device)[:, None, None]
    # Channels come last where the indices stand apart.
    return x[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


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
