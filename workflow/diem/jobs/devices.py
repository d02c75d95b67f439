"""Which device a job computes on.

Of several jobs on one machine, each has GPUs of its own: it takes what no other job holds, and
waits while there are too few. On a cluster the scheduler shows a job only the GPUs that it gave.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import torch

from diem.errors import DiemError

__all__ = ["lent_device", "select_device", "select_devices", "take"]

logger = logging.getLogger("diem")

_HELD: dict[str, IO[str]] = {}
"""The open lock files of the GPUs that this process holds, until it ends."""


def select_device(name: str) -> torch.device:
    """Returns the device to compute on, see :func:`select_devices`."""
    return select_devices(name, 1)[0]


def select_devices(name: str, count: int) -> list[torch.device]:
    """Returns the devices to compute on, one a process.

    Arguments:
        name: ``auto`` takes GPUs where there are any, ``cuda`` takes GPUs, each of which no other
            job holds; any other name is taken as it is, and a GPU that it names may be shared.
        count: How many processes there are. Those on CPUs share one device.

    Raises:
        DiemError: If the named device is not there, or there are too few.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DiemError(f"device: {name!r} cannot be used here ({reason}).") from None
    if name == "cpu":
        return [torch.device(name)] * count
    available = torch.cuda.device_count() if name == "cuda" else 1
    if count > available:
        raise DiemError(
            f"m_step.processes is {count}, and device {name!r} has {available} here: each process"
            " needs one of its own."
        )
    if name != "cuda":
        return [torch.device(name)]
    identities = [str(torch.cuda.get_device_properties(i).uuid) for i in range(available)]
    return [torch.device("cuda", i) for i in take(identities, count)]


@contextlib.contextmanager
def lent_device(name: str) -> Iterator[torch.device]:
    """Yields the device of :func:`select_device`, which other jobs may take again afterwards.

    It is for work in a process that goes on for longer, such as a notebook's.
    """
    before = set(_HELD)
    try:
        yield select_device(name)
    finally:
        for identity in _HELD.keys() - before:
            _HELD.pop(identity).close()


def take(identities: Sequence[str], count: int, folder: str | Path | None = None) -> list[int]:
    """Takes devices that no other process holds, and holds them until this process ends.

    The operating system releases what a killed process held. All or none are taken, so that two
    jobs cannot wait for each other.

    Arguments:
        identities: A name for each device that is here, the same in every process.
        count: How many to take.
        folder: Where the lock files lie: by default a folder of the user's on this machine.

    Returns:
        The places of the taken devices. A device that this process holds is taken again.
    """
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"diem-devices-{os.getuid()}"
    folder = Path(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while True:
        taken: dict[str, IO[str]] = {}
        for identity in identities:
            if len(taken) == count:
                break
            file = _HELD.get(identity) or _locked(folder / identity)
            if file is not None:
                taken[identity] = file
        if len(taken) == count:
            _HELD.update(taken)
            return [list(identities).index(identity) for identity in taken]
        for identity, file in taken.items():
            if identity not in _HELD:
                file.close()
        if not waiting:
            logger.info("waiting for %d of %d devices", count, len(identities))
            waiting = True
        time.sleep(1.0)


def _locked(path: Path) -> IO[str] | None:
    """Returns the open lock file, or none if another process holds it."""
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
