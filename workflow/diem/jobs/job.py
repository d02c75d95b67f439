"""What every job of a workflow shares: its log, its threads, its device and its errors.

A :class:`Job` is what the library's long computations are given of it.
"""

import contextlib
import io
import logging
import math
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from diem.errors import DiemError
from diem.files.atomic import LossyFile
from diem.jobs.devices import select_device
from diem.jobs.results import remove_pieces
from diem.jobs.resume import Keep, Pieces, Stopped, fingerprint, stoppable

__all__ = ["Job", "job", "logger", "progress", "select_device", "started"]

logger = logging.getLogger("diem")


def _silent() -> tqdm:
    return tqdm(disable=True)


@dataclass(frozen=True)
class Job:
    """What travels with a long computation, and is no part of what it computes.

    Arguments:
        seed: The configuration's seed.
        device: The device to compute on.
        keep: Makes the pieces of the work that an earlier attempt has not kept, see
            :mod:`diem.jobs.resume`; by default, they are kept in memory.
        progress: A progress bar.
        cache_mb: The most memory, in MiB, that a set of samples may take; the rows of a larger one
            are read from the disk as they are needed, which changes no number.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    keep: Keep = field(default_factory=Pieces)
    progress: tqdm = field(default_factory=_silent)
    cache_mb: float = math.inf


@contextlib.contextmanager
def started(snakemake: Any, unit: str | None = None, total: int | None = None) -> Iterator[Job]:
    """Runs a script's work as a job of Snakemake: a :func:`job` with pieces and a progress bar.

    The pieces depend on all of the script's inputs, parameters and wildcards. Those of the jobs
    that made the inputs are removed: Snakemake has taken note that these have ended.

    Arguments:
        snakemake: The script's ``snakemake`` object.
        unit: What the progress bar counts. With one, the job computes: it takes a device, and keeps
            finished pieces beside its first output.
        total: How many there are, if it is known before.
    """
    config, log = snakemake.config, snakemake.log[0]
    params = dict(snakemake.params.items())
    with job(log, config["threads"]), contextlib.ExitStack() as stack:
        results = Path(config["results"])  # other inputs are the user's
        remove_pieces(*(file for file in snakemake.input if Path(file).is_relative_to(results)))
        work = Job(seed=params.get("seed", 0), cache_mb=config["cache_mb"])
        if unit is not None:
            device = select_device(config["device"])
            wildcards = dict(snakemake.wildcards.items())
            made_of = fingerprint(list(snakemake.input), params, wildcards, device=device)
            pieces = Pieces(snakemake.output[0], made_of, config["checkpoint_seconds"])
            work = replace(
                work,
                device=device,
                keep=stack.enter_context(pieces),
                progress=stack.enter_context(progress(log, unit, total)),
            )
        yield work


def _log(path: str | Path, mode: str) -> io.TextIOWrapper:
    """Opens a log, whose lines are lost while the disk is full: results tell of that."""
    file = io.BufferedWriter(LossyFile(str(path), mode))
    return io.TextIOWrapper(file, encoding="utf-8", line_buffering=True)


@contextlib.contextmanager
def job(log: str, threads: int) -> Iterator[None]:
    """Runs a job: writes its log, fixes its threads, and tells errors.

    A :class:`DiemError` is told in one sentence, on the standard error and in the log, and ends
    the process with code 1. A request to stop, such as Ctrl-C, raises
    :class:`diem.jobs.resume.Stopped`, is told likewise, and ends it with code 143. Anything else is
    a defect and keeps its traceback.

    Arguments:
        log: The log's file.
        threads: The number of threads of the linear algebra. It is the config's and not what the
            scheduler grants, since sums are ordered by it and results must not depend on the
            machine's cores.
    """
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        opened = _log(log, "w")
    except OSError as error:
        sys.exit(f"Error: {log} cannot be written: {error.strerror}.")
    with opened as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)
        torch.set_num_threads(threads)
        try:
            with stoppable():
                yield
        except (DiemError, Stopped) as error:
            for stream in (file, sys.stderr):
                print(f"Error: {error}", file=stream)
            sys.exit(128 + signal.SIGTERM if isinstance(error, Stopped) else 1)
        except Exception:
            traceback.print_exc(file=file)
            raise
        finally:
            logger.removeHandler(handler)
            logging.getLogger("py.warnings").removeHandler(handler)


@contextlib.contextmanager
def progress(log: str, unit: str, total: int | None = None) -> Iterator[tqdm]:
    """Yields a progress bar in a log, with rate and time left."""
    with (
        _log(log, "a") as file,
        tqdm(total=total, unit=f" {unit}", file=file, mininterval=1, ascii=True) as bar,
    ):
        yield bar
