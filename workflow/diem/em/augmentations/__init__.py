"""Random changes of training images: one file a change, see :mod:`.base`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diem.components import Kind
from diem.em.augmentations.base import Augmentation

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["AUGMENTATIONS", "Augmentation", "augment", "chosen"]

AUGMENTATIONS = Kind(
    "augment",
    __name__,
    Augmentation,  # type: ignore[type-abstract]
    besides=["base", "hsv"],
)


def chosen(settings: Mapping[str, Any], where: str = "m_step.augment") -> tuple[Augmentation, ...]:
    """Returns the changes that a config's ``augment`` asks for, in the order of their making.

    Arguments:
        settings: The value of each change, by its name.
        where: The place of the entry in the configuration, for errors.

    Raises:
        DiemError: If a change is unknown, or its value is bad.
    """
    changes = [
        AUGMENTATIONS.find(name, f"{where}.{name}").of(value, f"{where}.{name}")
        for name, value in settings.items()
    ]
    return tuple(sorted(changes, key=lambda change: change.order))


def augment(x: Tensor, changes: Sequence[Augmentation], generator: Generator) -> Tensor:
    """Changes images at random.

    Arguments:
        x: The images, of shape ``(batch, channel, height, width)``.
        changes: The changes, as :func:`chosen` returns them.
        generator: The random stream, on the images' device.

    Returns:
        The changed images.
    """
    for together, alike in itertools.groupby(changes, key=lambda change: change.together):
        x = together(list(alike), x, generator)
    return x
