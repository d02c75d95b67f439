"""Images as intensities that can be seen, of complex ones the magnitude."""

import numpy as np
import torch

from diem.evaluation import arrays

__all__ = ["grey", "intensities"]


def intensities(x: np.ndarray) -> np.ndarray:
    """Returns images of any leading shape as intensities, complex ones with one channel."""
    flat = torch.from_numpy(np.ascontiguousarray(x)).flatten(0, -4)
    return arrays.intensities(flat).reshape(*x.shape[:-3], -1, *x.shape[-2:]).numpy()


def grey(x: np.ndarray) -> np.ndarray:
    """Returns the same in [-2, 2], the range of images that are drawn."""
    return 4 * intensities(x) - 2
