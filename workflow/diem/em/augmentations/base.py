r"""What a random change of training images is.

It leaves the images' distribution almost as it is, and every image draws its own. Images are in
:math:`[-2, 2]`; posterior samples may leave this range by a little, and are not clipped.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ValidationError

from diem.components import Component, tell
from diem.errors import DiemError

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Augmentation", "uniform"]


class Augmentation(Component):
    """A change of images, whose one option is its value in the configuration."""

    order: ClassVar[int] = 9
    """Its place among the changes that are made: those that move pixels come before colours."""
    colour: ClassVar[bool] = False
    """Whether it needs colour images."""

    value: Any

    @abc.abstractmethod
    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """Returns changed images.

        Arguments:
            x: The images, of shape ``(batch, channel, height, width)``.
            generator: The random stream, on the images' device.
        """

    @classmethod
    def together(cls, changes: Sequence[Self], x: Tensor, generator: Generator) -> Tensor:
        """Makes neighbouring changes of one kind; those that share this method are made at once."""
        for change in changes:
            x = change.change(x, generator)
        return x

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises a :class:`DiemError` if data of a shape cannot be changed so."""
        if len(shape) != 3 or (self.colour and shape[0] != 3):
            kind = "colour images (3, H, W)" if self.colour else "images (C, H, W)"
            raise DiemError(
                f"m_step.augment.{self.name} needs {kind}, and the data have shape {shape}."
            )

    @classmethod
    def of(cls, value: Any, where: str) -> Self:
        """Builds the change of a value in the configuration.

        Arguments:
            value: The value.
            where: Its place in the configuration, for errors.

        Raises:
            DiemError: If the value is bad.
        """
        try:
            return cls.model_validate({"value": value})
        except ValidationError as error:
            sentence = tell(error, cls, where, {"value": value})
            raise DiemError(f"{sentence.replace(f'{where}.value', where)}.") from None


def uniform(x: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """Draws a number for each image, of shape ``(batch, 1, 1)``."""
    from diem.lazy import torch

    u = torch.rand(len(x), 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    return low + (high - low) * u
