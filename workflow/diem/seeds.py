"""Random streams that depend on the configuration alone.

Every stream is ``numpy.random.SeedSequence(seed, spawn_key=(stage, lap, block))``. A *block* is a
fixed number of consecutive observations, so the number of shards, cores or interruptions cannot
change a number.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from diem.lazy import torch

__all__ = ["Stage", "rng", "torch_generator"]


class Stage(IntEnum):
    """The purposes for which random numbers are drawn. Their values never change."""

    DATA = 0
    SPLIT = 1
    CORRUPTION = 2
    GAUSSIAN = 3
    E_STEP = 4
    M_STEP = 5
    VALIDATION = 6
    PRIOR = 7
    METRIC = 8
    EXTRACTOR = 9
    NETWORK = 10
    EPOCH = 11
    TEST_POSTERIOR = 12
    RESTORATION = 13
    HEURISTICS = 14
    PREDICTION = 15


def _sequence(seed: int, stage: Stage, lap: int, block: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(int(stage), lap, block))


def rng(seed: int, stage: Stage, lap: int = 0, block: int = 0) -> np.random.Generator:
    """Returns the NumPy generator of one stream.

    Arguments:
        seed: The configuration's seed.
        stage: What the numbers are for.
        lap: The lap of the EM loop, 0 outside of it.
        block: The block of observations, 0 where there are none.
    """
    return np.random.default_rng(_sequence(seed, stage, lap, block))


def torch_generator(
    seed: int, stage: Stage, lap: int = 0, block: int = 0, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Returns the PyTorch generator of one stream, see :func:`rng`.

    The stream depends on the kind of device too: PyTorch draws other numbers on a GPU.
    """
    state = _sequence(seed, stage, lap, block).generate_state(2, np.uint32)
    generator = torch.Generator(device=device)
    generator.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    return generator
