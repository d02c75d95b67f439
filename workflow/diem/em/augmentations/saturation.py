"""Changed saturations."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from diem.components import Number, option
from diem.em.augmentations.hsv import HSVChange

__all__ = ["Saturation"]


class Saturation(HSVChange):
    """Multiplies each image's saturation by its own factor."""

    name = "saturation"
    order = 3

    value: list[Annotated[Number, Field(ge=0)]] = option(
        ...,
        "multiplies the saturation (of HSV) by a factor between the two of the list; colour images"
        " only",
        paper="[0.95, 1.05] / - / -",
        min_length=2,
        max_length=2,
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.value[0] > self.value[1]:
            raise ValueError(f"{{place}} is {self.value}, where the lower factor comes first")
        return self

    @property
    def factor(self) -> tuple[float, float]:
        low, high = self.value
        return low, high
