"""Mirrored images."""

from diem.components import option
from diem.em.augmentations.base import Augmentation, uniform
from diem.lazy import torch

__all__ = ["Flip"]


class Flip(Augmentation):
    """Mirrors one image in two from left to right."""

    name = "flip"
    order = 0

    value: bool = option(
        ..., "true mirrors one image in two from left to right", paper="true / - / true"
    )

    def change(self, x, generator):
        if not self.value:
            return x
        return torch.where(uniform(x, 0, 1, generator)[..., None] < 0.5, x.flip(-1), x)
