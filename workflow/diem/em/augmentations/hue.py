"""Turned hues."""

from typing import Annotated

from pydantic import Field

from diem.components import Number, option
from diem.em.augmentations.hsv import HSVChange

__all__ = ["Hue"]


class Hue(HSVChange):
    """Turns each image's hue by its own angle."""

    name = "hue"
    order = 2

    value: Annotated[Number, Field(ge=0, le=0.5)] = option(
        ...,
        "turns the hue (of HSV) by up to this fraction of the circle, at most 0.5; colour images"
        " only",
        paper="0.01 / - / -",
    )

    @property
    def turns(self) -> tuple[float, float]:
        return -self.value, self.value
