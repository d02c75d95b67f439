"""What every job of a workflow shares: its log, its threads, its device and its errors."""

import contextlib
import io
import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from diem.errors import DiemError
from diem.files.atomic import LossyFile
from diem.jobs.devices import select_device
from diem.jobs.resume import Stopped, stoppable

__all__ = ["job", "logger", "progress", "select_device"]

logger = logging.getLogger("diem")


def _log(path: str | Path, mode: str) -> io.TextIOWrapper:
    """Opens a log, whose lines are lost while the disk is full: results tell of that."""
    file = io.BufferedWriter(LossyFile(str(path), mode))
    return io.TextIOWrapper(file, encoding="utf-8", line_buffering=True)


@contextlib.contextmanager
def job(log: str, threads: int) -> Iterator[None]:
    """Runs a job: writes its log, fixes its threads, and tells errors.

    A :class:`DiemError` is told in one sentence, on the standard error and in the log, and ends
    the process with code 1. A request to stop raises :class:`diem.jobs.resume.Stopped`, is told
    likewise, and ends it with code 143. Anything else is a defect and keeps its traceback.

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
