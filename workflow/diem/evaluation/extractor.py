"""The extractor of features of small images, which is trained as a classifier of clean ones."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from diem.errors import DiemError
from diem.files.hdf5 import Rows
from diem.files.tensors import load_tensors, save_tensors
from diem.seeds import Stage, global_stream, stream_seed

__all__ = ["Extractor", "load_extractor", "train_extractor"]

Array = np.ndarray | Tensor


class Extractor(nn.Module):
    """A small convolutional classifier, whose penultimate layer are the features of images.

    It is made for small images, and is not the Inception network: distances on its features are
    not FIDs.

    Arguments:
        shape: The shape :math:`(C, H, W)` of the images, at least 2x2 pixels.
        classes: The number of classes.
        validation_accuracy: The fraction of held-out images whose class it recognizes, if known.
    """

    name = "cnn32"
    width = 16
    dimension = 32  # the number of features

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        validation_accuracy: float | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.classes = classes
        self.validation_accuracy = validation_accuracy
        width = self.width
        self.body = nn.Sequential(
            nn.Conv2d(self.shape[0], width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, self.dimension),
            nn.SiLU(),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(self.dimension, classes)

    @property
    def card(self) -> dict[str, Any]:
        """What tells the extractor on the card of a number."""
        return {
            "extractor": self.name,
            "extractor_digest": self.digest(),
            "extractor_accuracy": self.validation_accuracy,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits, with shape (N, classes), of images with shape (N, C, H, W)."""
        return self.head(self.dropout(self.body(x)))

    @torch.no_grad()
    def features(self, x: Array) -> Tensor:
        """Returns the features of images.

        Arguments:
            x: The images in [-2, 2], with shape :math:`(N, C, H, W)`. Values beyond are not
                clipped.

        Returns:
            The features, without unit, with shape :math:`(N, 32)`.

        Raises:
            ValueError: If the images do not have the extractor's shape.
        """
        x = torch.as_tensor(x, dtype=torch.float32, device=self.head.weight.device)
        if x.shape[1:] != self.shape:
            raise ValueError(f"The extractor is for {self.shape}, got {tuple(x.shape[1:])}.")
        return torch.cat([self.body(part) for part in x.split(1024)])

    def features_of(self, parts: Iterable[Array]) -> Tensor:
        """Returns the :meth:`features` of consecutive parts of images at once."""
        return torch.cat([self.features(part) for part in parts])

    @torch.no_grad()
    def accuracy(self, x: Array | Rows, label: Array) -> float:
        """Returns the fraction of images, with shape (N, C, H, W), whose class is recognized.

        Arguments:
            x: The images in [-2, 2], with shape :math:`(N, C, H, W)`, or on the disk.
            label: Their classes, with shape :math:`(N,)`.
        """
        right = 0
        for start in range(0, len(x), 1024):
            rows = slice(start, start + 1024)
            predicted = self.head(self.features(x[rows])).argmax(dim=1)
            right += int((predicted == torch.as_tensor(label[rows], device=predicted.device)).sum())
        return right / len(x)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that identify the weights, for the metric's card."""
        sha = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            sha.update(name.encode())
            sha.update(value.cpu().numpy().tobytes())
        return sha.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Writes the extractor as safetensors with JSON metadata.

        Arguments:
            path: The file, which appears only once it is complete.

        Raises:
            DiemError: If the file cannot be written.
        """
        card = {
            "name": self.name,
            "shape": self.shape,
            "classes": self.classes,
            "validation_accuracy": self.validation_accuracy,
        }
        save_tensors(path, self.state_dict(), {"extractor": json.dumps(card)})


def load_extractor(path: str | Path) -> Extractor:
    """Reads an extractor that :func:`Extractor.save` wrote.

    Raises:
        DiemError: If the file cannot be read, or is not an extractor.
    """
    weights, header = load_tensors(path)
    try:
        card = json.loads(header["extractor"])
        if card.pop("name") != Extractor.name:
            raise ValueError("it has another name")
        extractor = Extractor(**card)
        extractor.load_state_dict(weights)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DiemError(f"{path}: this is no {Extractor.name!r} extractor ({reason}).") from error
    return extractor.eval().requires_grad_(False)


def train_extractor(
    x: Array | Rows,
    label: Array,
    x_validation: Array | Rows,
    label_validation: Array,
    seed: int,
    steps: int = 400,
) -> Extractor:
    """Trains an extractor as a classifier of clean, labelled images, on the CPU.

    Arguments:
        x: The images in [-2, 2], with shape :math:`(N, C, H, W)`, or on the disk.
        label: Their classes, integers from 0, with shape :math:`(N,)`.
        x_validation: Images that it is not trained on, with shape :math:`(M, C, H, W)`, or on the
            disk.
        label_validation: Their classes, with shape :math:`(M,)`.
        seed: The configuration's seed. On one kind of machine, the weights follow from it, the
            images and the number of steps alone. The global random state is left as it was.
        steps: The number of optimizer steps, each on 128 images.

    Returns:
        The extractor, in evaluation mode, with its accuracy on the validation images.
    """
    label = torch.as_tensor(label, dtype=torch.int64)
    with global_stream(stream_seed(seed, Stage.EXTRACTOR)), _one_thread():
        extractor = Extractor(shape=tuple(x.shape[-3:]), classes=int(label.max()) + 1)
        optimizer = torch.optim.AdamW(extractor.parameters(), weight_decay=1e-2)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(x), size=(128,))
            images = torch.as_tensor(x[batch.numpy()], dtype=torch.float32)
            # Without smoothing the features grow with training, and distances with them.
            loss = F.cross_entropy(extractor(images), label[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()

    extractor.eval().requires_grad_(False)
    extractor.validation_accuracy = extractor.accuracy(x_validation, label_validation)
    return extractor


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order whatever the number of cores, which is also fast for a small network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
