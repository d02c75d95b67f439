"""What the parts share: where they run, how two results are compared, and how long a call takes."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

__all__ = ["Case", "Setup", "differences", "equal_files", "error", "single_precision", "timed"]

Case = tuple[str, Callable[[], dict[str, Any]]]
"""A case's name, and the call that returns its values or raises."""


@dataclass(frozen=True)
class Setup:
    """Where a part runs.

    Arguments:
        device: ``cuda``, or ``cpu`` to try the part itself.
        tiny: Whether all sizes are the smallest.
        folder: An empty folder to write to.
    """

    device: torch.device
    tiny: bool
    folder: Path

    @property
    def cuda(self) -> bool:
        """Whether this is a GPU."""
        return self.device.type == "cuda"

    def new_folder(self, name: str) -> Path:
        """Returns a new folder."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def synchronize(self) -> None:
        """Waits for what a GPU still does."""
        if self.cuda:
            torch.cuda.synchronize(self.device)


def single_precision() -> AbstractContextManager:
    """Returns a context in which convolutions on a GPU do not round to 10 bits (TF32)."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=False, allow_tf32=False
    )


def error(x: Tensor, reference: Tensor) -> float:
    """Returns the distance to a reference, relative to its norm."""
    x, reference = x.detach().cpu().double(), reference.detach().cpu().double()
    return float((x - reference).norm() / reference.norm().clamp(min=1e-30))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        tensors.pop("sha256", None)
        return tensors
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: np.asarray(item[()])})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return arrays


def equal_files(one: Path, other: Path) -> list[str]:
    """Returns a sentence for each array that differs between two files of results."""
    if one.suffix not in (".h5", ".safetensors"):
        return [] if one.read_bytes() == other.read_bytes() else ["its text differs"]
    before, after = _arrays(one), _arrays(other)
    if before.keys() != after.keys():
        return [f"it holds {sorted(before.keys() ^ after.keys())} once only"]
    sentences = []
    for name, a in before.items():
        b = after[name]
        if a.shape != b.shape:
            sentences.append(f"{name}: shape {a.shape}, then {b.shape}")
        elif a.tobytes() != b.tobytes():
            far = f" by up to {np.nanmax(np.abs(a - b)):.2g}" if a.dtype.kind == "f" else ""
            sentences.append(f"{name}: {np.sum(a != b)} of {a.size} values differ{far}")
    return sentences


def differences(one: Path, other: Path) -> tuple[int, list[str]]:
    """Returns the number of results in a folder, and what differs from those of another."""

    def names(folder: Path) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in (".h5", ".safetensors", ".csv") and ".diem/" not in str(path)
        }

    both = names(one) & names(other)
    sentences = [f"{name}: it is there once only" for name in sorted(names(one) ^ names(other))]
    for name in sorted(both):
        sentences += [f"{name}: {text}" for text in equal_files(one / name, other / name)]
    return len(both), sentences


def timed(setup: Setup, run: Callable[[], Any], seconds: float = 2.0) -> tuple[float, int]:
    """Returns the median of the seconds that a call takes, and how many were measured."""
    if setup.tiny:
        seconds = 0.0
    for _ in range(1 if setup.tiny else 3):
        run()
    measured: list[float] = []
    end = time.perf_counter() + seconds
    while len(measured) < 3 or (time.perf_counter() < end and len(measured) < 50):
        setup.synchronize()
        began = time.perf_counter()
        run()
        setup.synchronize()
        measured.append(time.perf_counter() - began)
    return statistics.median(measured), len(measured)
