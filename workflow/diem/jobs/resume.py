"""How a long job goes on from where it was: the finished pieces of its work, and how it is stopped.

A *piece* is a few arrays under a name, such as a block of samples or the state after an iteration.
A job asks for each with ``keep(name, make)``, which makes only those that an interrupted attempt
has not kept. Since every piece has a random stream of its own or carries the state of one, the
numbers are those of an attempt that was never interrupted.

A job that was asked to stop (:data:`REQUESTS`) keeps what is finished.
"""

import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

import diem
from diem import __version__
from diem.files.atomic import atomic
from diem.files.tensors import content_digest
from diem.jobs.results import pieces_folder
from diem.signals import handled
from diem.versions import versions

__all__ = [
    "ANEW",
    "Keep",
    "Pieces",
    "Stopped",
    "cached_number",
    "cached_tensor",
    "deferred",
    "fingerprint",
    "no_cache",
    "prefixed",
    "stoppable",
]

logger = logging.getLogger("diem")

UNWRITTEN_BYTES = 2**28
"""Pieces are written once they hold so many bytes, however little time has passed."""

REQUESTS = (signal.SIGTERM, signal.SIGURG)
"""The signals that ask a job to stop.

A scheduler sends SIGTERM at the limit of time, to all processes, and those between it and the job
die of it. SIGURG, which everything else ignores, is for a warning before: docs/cluster.md.
"""

Arrays = Mapping[str, np.ndarray]

Keep = Callable[[str, Callable[[], Arrays]], Arrays]
"""Returns the piece of a name, made by a function unless it was kept."""


def no_cache(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Makes a piece, and keeps nothing."""
    return make()


def cached_tensor(keep: Keep, name: str, make: Callable[[], Tensor]) -> Tensor:
    """Returns a piece of one tensor, on the CPU."""
    return torch.from_numpy(keep(name, lambda: {"x": make().cpu().contiguous().numpy()})["x"])


def cached_number(keep: Keep, name: str, make: Callable[[], float]) -> float:
    """Returns a piece of one number."""
    return float(keep(name, lambda: {"x": np.array(make(), np.float64)})["x"])


def prefixed(keep: Keep, prefix: str) -> Keep:
    """Returns what keeps pieces under names that begin with a prefix."""
    return lambda name, make: keep(f"{prefix}/{name}", make)


def fingerprint(
    files: Sequence[str | Path], *settings: Any, device: str | torch.device = "cpu"
) -> str:
    """Returns what the pieces of a job depend on, as hexadecimal digits.

    Arguments:
        files: The job's inputs.
        settings: Its settings (JSON). The code and the versions of this library and of others, the
            number of threads, by which sums are ordered, and the kind of the device are added.
        device: The device that it computes on.
    """
    software = {**versions(), "diem": __version__, "code": _code()}
    kind = torch.device(device).type
    return content_digest(files, *settings, software, torch.get_num_threads(), kind)


GROUND = ("components", "seeds")
ROOMS = (
    *("files", "jobs", "operators", "networks", "diffusion", "data", "em", "inference"),
    *("evaluation", "paper"),
)
"""What numbers depend on of this library: not how they are shown, planned or asked for."""

ANEW = (
    "what an earlier attempt kept is not used: it is of other inputs, settings, code, versions,"
    " threads or another kind of device"
)


@functools.cache
def _code() -> str:
    """Returns a digest of the code that numbers depend on."""
    library = Path(diem.__file__).parent
    rooms = {path for room in ROOMS for path in library.glob(f"{room}/**/*.py")}
    return content_digest(sorted(rooms | {library / f"{name}.py" for name in GROUND}))


class Pieces:
    """The finished pieces of a job's work, in a folder beside its output that no rule declares.

    A context that is left by an exception, which a request to stop is too, writes what is finished.
    One that is left in peace leaves the folder as it is, since Snakemake does a job again if it was
    killed before it took note of the job's end: :func:`diem.jobs.results.remove_pieces` is for
    later.

    Arguments:
        output: The file that the pieces are for; without one, they are kept in memory alone.
        fingerprint: What the pieces depend on; those of another fingerprint are not used.
        seconds: The least time between two writes.
    """

    def __init__(
        self, output: str | Path | None = None, fingerprint: str = "", seconds: float = 60.0
    ) -> None:
        self.folder = None if output is None else pieces_folder(output, fingerprint)
        self.seconds = seconds
        self._places: dict[str, Path] = {}
        self._unwritten: dict[str, Arrays] = {}
        self._next = 0
        self._written = time.monotonic()
        if self.folder is not None and self.folder.is_dir():
            self._look(self.folder)
        elif self.folder is not None and any(self.folder.parent.glob("pieces-*")):
            logger.warning("%s: %s; the work begins anew", output, ANEW)

    def _look(self, folder: Path) -> None:
        """Finds the pieces that an earlier attempt has kept, of which damaged ones are dropped."""
        for path in folder.glob("*.*.npz"):
            number, digest, _ = path.name.split(".")
            self._next = max(self._next, int(number) + 1)
            if content_digest([path]) == digest:
                with np.load(path) as file:
                    self._places |= {name.rpartition("/")[0]: path for name in file.files}
            else:
                logger.warning("%s is damaged, and its pieces are made again", path)
                path.unlink()
        logger.info("goes on with %d pieces of an earlier attempt", len(self._places))

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Returns the piece of a name, made by a function unless it was kept.

        Arguments:
            name: The name, which may have slashes.
            make: Returns the piece.
        """
        if name in self._unwritten:
            return self._unwritten[name]
        if name in self._places:
            with np.load(self._places[name]) as file:
                own = [key for key in file.files if key.rpartition("/")[0] == name]
                return {key.rpartition("/")[2]: file[key] for key in own}
        self._unwritten[name] = arrays = make()
        size = sum(a.nbytes for piece in self._unwritten.values() for a in piece.values())
        if time.monotonic() - self._written >= self.seconds or size >= UNWRITTEN_BYTES:
            self.write()
        return arrays

    def __contains__(self, name: str) -> bool:
        return name in self._unwritten or name in self._places

    def write(self) -> None:
        """Writes the finished pieces that were not written yet, to one file.

        Raises:
            DiemError: If the folder cannot be written, or the disk is full.
        """
        if self.folder is None or not self._unwritten:
            return
        flat = {
            f"{name}/{key}": array
            for name, piece in self._unwritten.items()
            for key, array in piece.items()
        }
        new = self.folder / "new.npz"
        with atomic(new) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **flat)
        # Its name tells its content, so that damage is found.
        path = new.rename(self.folder / f"{self._next}.{content_digest([new])}.npz")
        self._places |= dict.fromkeys(self._unwritten, path)
        self._unwritten = {}
        self._next += 1
        self._written = time.monotonic()

    def __enter__(self) -> "Pieces":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.write()


class Stopped(BaseException):
    """The job was asked to stop. It is no error: nothing should catch and go on.

    Attributes:
        number: The signal that asked.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(
            "The job was asked to stop and has kept its finished work, with which the next goes on."
        )
        self.number = number


@contextlib.contextmanager
def stoppable(*others: int) -> Iterator[None]:
    """Has a request or Ctrl-C raise :class:`Stopped`, at once; further ones are ignored.

    Arguments:
        others: More signals that are requests. One that is ignored already, as nohup and the
            background of a shell have it, stays so, and so does Ctrl-C.
    """
    interactive = [n for n in (signal.SIGINT, *others) if signal.getsignal(n) != signal.SIG_IGN]
    requests = [*REQUESTS, *interactive]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for request in requests:
            signal.signal(request, signal.SIG_IGN)
        raise Stopped(number)

    with handled(stop, *requests):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
    """Has requests to stop and the first SIGINT wait until the context is left.

    Yields:
        A list that holds a signal's number once it has come, for work that can stop at some points
        alone. What the signal would have done is done when the context is left.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    with handled(note, *REQUESTS, signal.SIGINT):
        yield asked
    if asked:
        signal.raise_signal(asked[0])
