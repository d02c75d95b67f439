"""Handwritten digits: the small real images that scikit-learn embeds."""

from typing import Self

import numpy as np
from pydantic import model_validator

from diem.components import Count, option
from diem.data.sets.base import DataSet, Split, from_bytes
from diem.seeds import Stage, rng

__all__ = ["Digits"]

IMAGES = 1797


class Digits(DataSet):
    """Splits the 1,797 real 8x8 images of handwritten digits that scikit-learn embeds.

    The events have shape (1, 8, 8), and the digits are their labels.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998)
        | https://archive.ics.uci.edu/dataset/80
    """

    name = "digits"
    facts = frozenset({"clean", "labels"})
    step = 4 / 16  # the pixels are integers from 0 to 16

    validation: Count = option(150, "the number of images for validation")
    test: Count = option(450, "the number of images for testing; the rest of 1,797 is to train on")

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> Self:
        if self.validation + self.test >= IMAGES:
            raise ValueError(
                f"{{place}}.validation and {{place}}.test are {self.validation} and {self.test},"
                f" which leaves none of the {IMAGES} digits to train on"
            )
        return self

    def event_shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def counts(self) -> dict[str, int]:
        train = IMAGES - self.validation - self.test
        return {"train": train, "validation": self.validation, "test": self.test}

    def load(self, seed: int) -> dict[str, Split]:
        from sklearn.datasets import load_digits  # takes seconds, and other data sets do without

        images, label = load_digits(return_X_y=True)
        x = from_bytes(images, self.step).reshape(IMAGES, 1, 8, 8)
        label = label.astype(np.int64)
        order = rng(seed, Stage.SPLIT).permutation(IMAGES)
        parts = np.split(order, [self.test, self.test + self.validation])
        return {
            name: Split(x[part], label[part])
            for name, part in zip(("test", "validation", "train"), parts, strict=True)
        }
