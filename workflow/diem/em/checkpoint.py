"""What resumes a training run that was interrupted, and how a run is asked to stop."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diem.em import distributed
from diem.errors import DiemError
from diem.files.tensors import load_tensors, save_tensors
from diem.jobs.results import checkpoint_file
from diem.jobs.resume import ANEW, deferred

__all__ = ["CURVE", "Checkpoint", "checkpointed"]

logger = logging.getLogger("diem")

CURVE = ("step", "loss", "validation_loss", "learning_rate", "halvings")
"""The columns of a loss curve: a row a chunk, after it."""


class Checkpoint:
    """The state of a training run after some of its steps, in one file.

    If the file exists, the run goes on from there and gives the same numbers. A damaged one is
    named in the log, and not used.

    Arguments:
        path: The file; without one, nothing is kept.
        fingerprint: What the run depends on; a checkpoint with another fingerprint is not used.
        seconds: The least time between two writes.
        requests: Holds something once the run is asked to stop.

    Attributes:
        step: The step of the state that is in the file, 0 if there is none.
    """

    def __init__(
        self,
        path: Path | None = None,
        fingerprint: str = "",
        seconds: float = 60.0,
        requests: Sequence[int] = (),
    ) -> None:
        self.path, self.fingerprint, self.seconds = path, fingerprint, seconds
        self.requests = requests
        self.step = 0
        self._written = time.monotonic()

    def __str__(self) -> str:
        return f"from {self.path} of step {self.step}" if self.step else "from its beginning"

    @property
    def stop(self) -> bool:
        """Whether the run is asked to stop."""
        return bool(self.requests)

    def load(self, state: Mapping[str, Tensor], lap: int) -> list[dict[str, float]]:
        """Gives the tensors of a state the values in the file, in their place.

        Arguments:
            state: The tensors by name.
            lap: The lap, for the log.

        Returns:
            The loss curve so far, which is empty if nothing is used.
        """
        self._written = time.monotonic()
        if self.path is None or not self.path.is_file():
            return []
        try:
            tensors, header = load_tensors(self.path)
        except DiemError as error:
            logger.warning("%s Lap %d starts anew.", error, lap)
            return []
        if header.get("fingerprint") != self.fingerprint:
            logger.warning("%s: %s; lap %d begins anew", self.path, ANEW, lap)
            return []
        for name, value in state.items():
            value.copy_(tensors[name])
        columns = {name: tensors[f"curve.{name}"].tolist() for name in CURVE}
        columns |= {name: [int(n) for n in columns[name]] for name in ("step", "halvings")}
        curve = [dict(zip(CURVE, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.step = curve[-1]["step"] if curve else 0
        return curve

    def save(
        self, state: Mapping[str, Tensor], curve: Sequence[Mapping[str, float]], now: bool
    ) -> None:
        """Writes a state, if it is time to.

        Arguments:
            state: The tensors by name.
            curve: The loss curve up to the state.
            now: Whether it is written though it is not yet time.
        """
        if self.path is None or not (now or time.monotonic() - self._written >= self.seconds):
            return
        if distributed.is_first():
            columns = {
                f"curve.{name}": torch.tensor([row[name] for row in curve], dtype=torch.float64)
                for name in CURVE
            }
            save_tensors(self.path, {**state, **columns}, {"fingerprint": self.fingerprint})
        self._written, self.step = time.monotonic(), int(curve[-1]["step"])


@contextlib.contextmanager
def checkpointed(output: str | Path, fingerprint: str, seconds: float) -> Iterator[Checkpoint]:
    """Yields the checkpoint of the run that makes a prior.

    Requests to stop wait until the context is left, since a run can stop after some steps alone.
    The last checkpoint stays beside the prior: Snakemake does a job again if it was killed before
    it took note of the job's end. :func:`diem.jobs.results.remove_pieces` is for later.

    Arguments:
        output: The prior's file.
        fingerprint: What the run depends on.
        seconds: The least time between two writes.
    """
    with deferred() as requests:
        yield Checkpoint(checkpoint_file(output), fingerprint, seconds, requests)
