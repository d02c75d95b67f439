"""Random streams that depend on the configuration alone.

Every stream is ``numpy.random.SeedSequence(seed, spawn_key=(stage, lap, block))``. A *block* is a
fixed number of consecutive observations, so the number of shards, cores or interruptions cannot
change a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np

from diem.lazy import torch

__all__ = [
    "Stage",
    "global_stream",
    "rng",
    "stream_beside",
    "stream_seed",
    "subset",
    "torch_generator",
]

WORDS = slice(24, 24 + 8 * 624)
"""Where PyTorch's state of a CPU generator holds those of the Mersenne twister, one in 8 bytes."""


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
    SPREAD = 16
    DROPOUT = 17
    CALIBRATION = 18
    SUBSET = 19
    PARTS = 20


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


def subset(total: int, count: int, seed: int, block: int = 0) -> np.ndarray:
    """Returns which rows stand for all: the first of a random order, since files may be sorted.

    A smaller subset is the beginning of a larger one.

    Arguments:
        total: The number of rows.
        count: How many to take, at most.
        seed: The configuration's seed.
        block: The number of the split.

    Returns:
        The rows' numbers, of shape ``(min(count, total),)``.
    """
    return rng(seed, Stage.SUBSET, block=block).permutation(total)[:count]


def torch_generator(
    seed: int, stage: Stage, lap: int = 0, block: int = 0, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Returns the PyTorch generator of one stream, see :func:`rng`.

    The stream depends on the kind of device too: PyTorch draws other numbers on a GPU.
    """
    return _torch_generator(_sequence(seed, stage, lap, block), device)


def stream_seed(seed: int, stage: Stage, lap: int = 0, block: int = 0) -> int:
    """Returns 63 bits for what takes a seed in the place of a stream, see :func:`rng`."""
    return _bits(_sequence(seed, stage, lap, block))


@contextlib.contextmanager
def global_stream(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Lets PyTorch's own generators, from which layers draw, draw from the stream of a seed.

    Afterwards they are as they were.

    Arguments:
        seed: Any number of bits, for instance those of :func:`stream_seed`.
        device: The device whose generator is drawn from, beside the CPU's.
    """
    sequence, device = np.random.SeedSequence(seed), torch.device(device)
    cuda, cpu = [device] if device.type == "cuda" else [], _torch_generator(sequence)
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(cpu.initial_seed())  # of devices without a state
        torch.set_rng_state(cpu.get_state())
        for gpu in cuda:
            torch.cuda.set_rng_state(_torch_generator(sequence, gpu).get_state(), gpu)
        yield


def _bits(sequence: np.random.SeedSequence) -> int:
    state = sequence.generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def _torch_generator(
    sequence: np.random.SeedSequence, device: str | torch.device = "cpu"
) -> torch.Generator:
    generator = torch.Generator(device=device)
    generator.manual_seed(_bits(sequence))
    if generator.device.type == "cpu":
        # There, manual_seed takes 32 bits and drops the others: any two of 80,000 streams would
        # likely be the same.
        words: Any = np.random.MT19937(sequence).state
        whole = generator.get_state()
        whole.numpy()[WORDS].view(np.uint64)[:] = words["state"]["key"]
        generator.set_state(whole)
    return generator


def stream_beside(generator: torch.Generator, stage: Stage) -> torch.Generator:
    """Returns a stream for another purpose, which depends on where a stream stands.

    Arguments:
        generator: The stream, which is left where it stands.
        stage: What the numbers are for.
    """
    device = generator.device
    copy = torch.Generator(device=device)
    copy.set_state(generator.get_state())
    seed = torch.randint(2**63 - 1, (), generator=copy, device=device)
    return torch_generator(int(seed), stage, device=device)
