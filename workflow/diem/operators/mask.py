"""Some pixels are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from diem.components import Count, Fraction, Integer, Model, option
from diem.errors import DiemError
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mask"]


class Mask(Operator):
    """Keeps some pixels, with all of their channels, and replaces the others by zero.

    Parameters:
        mask: Which pixels are kept, booleans of shape ``(B, 1, height, width)``, or in general of
            the event's shape with the first dimension 1; or which values, of the event's shape.
    """

    name = "mask"
    keeps_shape = True
    elementwise = True
    fields = ("mask",)
    booleans = ("mask",)

    class Options(Model):
        """How masks are drawn."""

        missing: Fraction | None = option(
            None,
            "the probability that a pixel is missing, with all of its channels, or a value of a"
            " vector",
        )
        box: Count | None = option(None, "or the height and width of a square hole, in pixels")
        place: Literal["random", "centre"] | None = option(
            None, "where the hole is: `random` (the default) or `centre`"
        )
        margin: Annotated[Integer, Field(ge=0)] | None = option(
            None,
            "the least distance of a random hole from the image's border, in pixels; by default 0",
            paper="16",
        )

        @model_validator(mode="after")
        def _one_of_two(self) -> Self:
            if self.missing is None and self.box is None:
                if "missing" in self.model_fields_set:
                    raise ValueError("{place}.missing is None, where a number is needed")
                raise ValueError("{place} lacks the key 'missing'")
            if self.missing is not None and self.box is not None:
                raise ValueError("{place}: either 'missing' or 'box' is given, not both")
            if self.missing is not None and self.place is not None:
                raise ValueError("{place}: 'place' belongs to 'box'")
            if self.margin is not None and (self.box is None or self.place == "centre"):
                raise ValueError("{place}: 'margin' belongs to a 'box' at a random place")
            return self

    @classmethod
    def suits(
        cls, event_shape, *, box: int | None = None, margin: int | None = None, **options
    ) -> None:
        margin = margin or 0
        if box is None:
            return
        if len(event_shape) != 3 or box + max(2 * margin, 1) > min(event_shape[1:]):
            around = f" with {margin} pixels around it" if margin else ""
            raise DiemError(
                f"operator.box: a hole of {box} x {box} pixels{around} needs larger images, and"
                f" the data have shape {tuple(event_shape)}."
            )

    @classmethod
    def simulate(  # type: ignore[override]  # its own options
        cls,
        event_shape,
        count,
        rng,
        *,
        missing: float | None = None,
        box: int | None = None,
        place: str | None = None,
        margin: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Draws masks of scattered missing pixels, or with a square hole.

        Each pixel, or value of a vector, misses with probability ``missing``; or a square of
        ``box`` by ``box`` pixels of an image misses, whose ``place`` is ``random`` (uniform over
        all that fit with ``margin`` pixels around them) or ``centre``.
        """
        if box is None:
            # All channels of a pixel miss together; a vector has values in the place of pixels.
            shown = event_shape if len(event_shape) == 1 else (1, *event_shape[1:])
            return {"mask": rng.random((count, *shown)) >= missing}
        margin = margin or 0
        cls.suits(event_shape, box=box, margin=margin)
        mask = np.ones((count, 1, *event_shape[1:]), bool)
        free = np.array(event_shape[1:]) - box
        if place == "centre":
            corners = np.tile(free // 2, (count, 1))
        else:
            corners = margin + rng.integers(free - 2 * margin + 1, size=(count, 2))
        for hole, (top, left) in zip(mask, corners, strict=True):
            hole[:, top : top + box, left : left + box] = False
        return {"mask": mask}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        return x * self.parameters["mask"]

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.parameters["mask"]

    def observed(self) -> Tensor:
        return self.parameters["mask"].expand(-1, *self.event_shape)

    def check(self) -> None:
        mask, expected = self.parameters["mask"], (1, *self.event_shape[1:])
        if tuple(mask.shape[1:]) not in (expected, self.event_shape):
            raise DiemError(
                f"operator/mask has shape {tuple(mask.shape[1:])} an observation, where x of shape"
                f" {self.event_shape} (event_shape) needs {expected} or its own."
            )
