"""Which samples a training step sees, and how they come from the disk."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from diem.files.hdf5 import Rows
from diem.seeds import Stage, rng

__all__ = ["Batches", "batches_on", "held_on", "rows_on"]


class Batches:
    """The rows of each step: an endless chain of permutations, which depends on the seed alone.

    Arguments:
        count: The number of samples.
        batch: The batch size.
        seed: The config's seed.
        lap: The lap.
    """

    def __init__(self, count: int, batch: int, seed: int, lap: int) -> None:
        self.count, self.batch, self.seed, self.lap = count, batch, seed, lap
        self.permutations: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self.permutations:
            # A batch never reaches back further than the epoch before.
            self.permutations = {e: p for e, p in self.permutations.items() if e >= epoch - 1}
            stream = rng(self.seed, Stage.EPOCH, self.lap, epoch)
            self.permutations[epoch] = stream.permutation(self.count)
        return self.permutations[epoch]

    def __getitem__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, rows = np.divmod(places, self.count)
        return np.concatenate([self._permutation(e)[rows[epochs == e]] for e in np.unique(epochs)])


def rows_on(x: Tensor | Rows, rows: np.ndarray, device: torch.device) -> Tensor:
    """Returns the chosen rows on a device, of samples that are there or on the disk."""
    if isinstance(x, Tensor):
        return x[torch.from_numpy(rows).to(device)]
    return torch.from_numpy(x[rows]).to(device)


def batches_on(
    x: Tensor | Rows, batches: Batches, steps: range, device: torch.device
) -> Generator[Tensor, None, None]:
    """Yields the batches of some steps on a device.

    Of samples on the disk, a thread reads and checks one batch while the one before is trained on.
    What it raises is raised here, in the place of that batch. Close the iterator, and the thread
    has ended.

    Arguments:
        x: The samples, see :func:`rows_on`.
        batches: The rows of each step.
        steps: The steps.
        device: The device.
    """
    if isinstance(x, Tensor):
        yield from (rows_on(x, batches[step], device) for step in steps)
        return
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        ahead: Future[Tensor] | None = None
        for step in steps:
            read = ahead or reader.submit(_read, x, batches[step], device)
            batch = read.result()
            if step + 1 < steps.stop:
                ahead = reader.submit(_read, x, batches[step + 1], device)
            yield batch.to(device, non_blocking=True)


def _read(x: Rows, rows: np.ndarray, device: torch.device) -> Tensor:
    """Returns rows on the CPU, from where a GPU can fetch them without the CPU's waiting."""
    batch = torch.from_numpy(x[rows])
    return batch.pin_memory() if device.type == "cuda" else batch


def held_on(x: Rows, device: torch.device) -> Tensor | Rows:
    """Returns samples on a device, unless they stay on the disk."""
    return x if x.held is None else torch.from_numpy(x.held).to(device)
