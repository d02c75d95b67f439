"""Files of a lap's posterior samples: the E-step writes them, the M-step reads them.

A file has the groups ``train`` and ``validation``, each with ``x``, one sample a row, and
``index``, the observation's own number. A lap's shards are such files too, gathered in one.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diem.em.blocks import Block
from diem.errors import DiemError
from diem.files.hdf5 import Reader, Rows, row_parts, write_hdf5

__all__ = ["count_of", "event_shape_of", "gather_samples", "open_samples", "write_samples"]

logger = logging.getLogger("diem")


def write_samples(
    output: str | Path,
    blocks: Sequence[Block],
    arrays_of: Callable[[Block], Mapping[str, np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Writes the samples of some blocks, block by block, as more than memory holds need.

    Arguments:
        output: The HDF5 file.
        blocks: The blocks.
        arrays_of: Returns a block's arrays: ``x`` and ``index``.
        attributes: What made the samples.
    """

    def parts(split: str, name: str) -> Iterator[np.ndarray]:
        return (arrays_of(block)[name] for block in blocks if block.split == split)

    splits = dict.fromkeys(block.split for block in blocks)
    names = [(split, name) for split in splits for name in ("x", "index")]
    write_hdf5(output, {f"{split}/{name}": parts(split, name) for split, name in names}, attributes)


def gather_samples(shards: Sequence[str | Path], output: str | Path) -> None:
    """Writes the samples of all shards as if they had been drawn at once.

    Arguments:
        shards: The files, from first to last.
        output: The HDF5 file.
    """
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(Reader(shard)) for shard in shards]
        attributes = dict(files[0].attributes)
        attributes["seconds"] = sum(file.attribute("seconds") for file in files)
        arrays: dict[str, Any] = {}
        for name in ("train/x", "train/index", "validation/x", "validation/index"):
            if any(name in file for file in files):
                arrays[name] = _stored(opened.enter_context(Rows(shards, name, cache_mb=0)))
        write_hdf5(output, arrays, attributes)


def _stored(rows: Rows) -> Iterator[np.ndarray]:
    return (np.asarray(part).astype(rows.stored, copy=False) for part in row_parts(rows))


def event_shape_of(paths: Sequence[str | Path]) -> tuple[int, ...]:
    """Returns the shape of one sample.

    Arguments:
        paths: The file of samples, or its shards, or a file of clean data.

    Raises:
        DiemError: If they hold no training samples.
    """
    for path in paths:
        with Reader(path) as file:
            if "train/x" in file:
                return file.shape("train/x")[1:]
    raise DiemError(f"{paths[0]}: the data set 'train/x' is missing.")


def count_of(paths: Sequence[str | Path], split: str) -> int:
    """Returns the number of samples of a split, of which none is read.

    Arguments:
        paths: The file of samples, or its shards, or a file of clean data.
        split: The split.
    """
    with Rows(paths, f"{split}/x", cache_mb=0) as x:
        return len(x)


def open_samples(
    paths: Sequence[str | Path],
    split: str,
    shape: tuple[int, ...],
    bound: float | None,
    cache_mb: float,
) -> Rows:
    """Opens the samples of a split, all of whose values lie within ``[-bound, bound]``.

    Arguments:
        paths: The file of samples, or its shards, or a file of clean data.
        split: The split.
        shape: The shape of one sample.
        bound: The bound, or none for all samples.
        cache_mb: The most memory, in MiB, that they may take.

    Raises:
        DiemError: If there are none.
    """
    x = Rows(paths, f"{split}/x", shape, cache_mb)
    if bound is None:
        return x
    inside = [(np.abs(v) <= bound).reshape(len(v), -1).all(axis=1) for v in row_parts(x)]
    x.keep(np.concatenate(inside))
    logger.info("kept %d of %d samples within [-%g, %g]", len(x), x.total, bound, bound)
    if len(x) == 0:
        raise DiemError(f"{paths[0]}: no sample lies within m_step.drop_outside = {bound}.")
    return x
