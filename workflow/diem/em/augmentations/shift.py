"""Shifted images."""

from diem.components import Integer, option
from diem.em.augmentations.base import Augmentation
from diem.errors import DiemError
from diem.lazy import torch

__all__ = ["Shift"]


class Shift(Augmentation):
    """Moves each image along both axes; what comes in is its reflection."""

    name = "shift"
    order = 1

    value: Integer = option(
        ...,
        "moves by up to so many pixels along each axis; what comes in is the reflection",
        paper="- / - / 4",
        ge=0,
    )

    def check(self, shape):
        super().check(shape)
        if self.value >= min(shape[-2:]):
            raise DiemError(
                f"m_step.augment.shift is {self.value} pixels, which is too far for images of"
                f" shape {shape}."
            )

    def change(self, x, generator):
        if not self.value:
            return x
        count, _, height, width = x.shape
        most = self.value
        move = torch.randint(2 * most + 1, (2, count, 1), generator=generator, device=x.device)
        rows, columns = (
            start + torch.arange(size, device=x.device)
            for start, size in zip(move, (height, width), strict=True)
        )
        x = torch.nn.functional.pad(x, (most,) * 4, mode="reflect")
        image = torch.arange(count, device=x.device)[:, None, None]
        # Channels come last where the indices stand apart.
        return x[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
