"""Stages, and the kinds of work that they are made of: what one item of each depends on.

Kinds are descriptions. :mod:`diem.planning.calibration` runs them to measure them, and
:mod:`diem.planning.resources` counts with the passes of a network that they take.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diem.data.sets import DATASETS
from diem.em.laps import OF_LAPS, optimizer_steps
from diem.networks import NETWORKS
from diem.networks.base import Network
from diem.planning import declared

__all__ = ["FLOAT", "Amounts", "Kinds", "Stage", "Work", "samples_by_split", "summed"]

FLOAT = 4
"""Bytes of a value on disk."""

HIDING = ("missing", "acceleration", "intensity", "place")
"""Options of operators on which no cost depends."""


@dataclass(frozen=True)
class Work:
    """A kind of work, which is measured once however many stages do it.

    Arguments:
        kind: Its name among :data:`diem.planning.calibration.KINDS`.
        key: What its cost depends on.
        settings: What is needed to run it.
        most: The most items that it is worth to do at once.
        passes: About how many forward passes of the network an item costs.
    """

    kind: str
    key: str
    settings: Mapping[str, Any] = field(compare=False, repr=False)
    most: int
    passes: float = field(default=0.0, compare=False)


Amounts = dict[Work, float]
"""Kinds of work, and how many items of each."""


def summed(amounts: Iterable[Amounts]) -> Amounts:
    """Returns the amounts of several jobs together."""
    total: Amounts = {}
    for each in amounts:
        for work, count in each.items():
            total[work] = total.get(work, 0) + count
    return total


def samples_by_split(data: Mapping[str, Any]) -> dict[str, int]:
    """Returns the number of samples by split of a ``data`` entry, whose files are asked once.

    Raises:
        DiemError: If only files can tell, and they are not there.
    """
    return dict(_counted(json.dumps(data)))


@functools.cache
def _counted(data: str) -> dict[str, int]:
    return DATASETS.parse(json.loads(data)).counts()


@dataclass(frozen=True)
class Stage:
    """A stage of an entry of the configuration.

    Arguments:
        entry: The name of the experiment, or of another entry.
        name: The stage's name.
        run: The run, where the stage has several.
        jobs: The number of jobs.
        work: What all of its jobs do.
        size: What it writes, in bytes; of what is removed again, the most that is there at once.
        network: Whether the network is nearly all of it, so that FLOPs tell the time elsewhere.
    """

    entry: str
    name: str
    run: str
    jobs: int
    work: Amounts
    size: float
    network: bool = True


@dataclass(frozen=True)
class Kinds:
    """The kinds of work of one experiment, or of another entry with a prior.

    Arguments:
        entry: The entry: ``gaussian``, and for the work of a network ``network`` and ``schedule``.
        shape: The event's shape.
    """

    entry: Mapping[str, Any]
    shape: tuple[int, ...]

    @property
    def network(self) -> Network:
        """The network."""
        return NETWORKS.parse(self.entry["network"])

    def activations(self, batch: int) -> float:
        """Returns how many values the network keeps of a batch for a backward pass."""
        return batch * self.network.activations(self.shape)

    def _work(
        self, kind: str, key: Iterable[Any], most: int, passes: float = 0.0, **settings: Any
    ) -> Work:
        text = json.dumps([kind, self.shape, *key], sort_keys=True)
        prior = ("network", "schedule")
        settings |= {part: self.entry[part] for part in prior if part in self.entry}
        settings |= {"shape": self.shape, "rank": self.entry["gaussian"]["rank"]}
        return Work(kind, text, settings, most, passes)

    def observing(self, observations: Mapping[str, Any]) -> Work:
        """The simulation of one observation."""
        return self._work("observing", [observations], 1024, observations=observations)

    def exact(self, observations: Mapping[str, Any], most: int) -> Work:
        """An exact posterior draw of the Gaussian prior."""
        key = [self.entry["gaussian"]["rank"], observations, most]
        return self._work("exact", key, most, observations=observations)

    def fitting(self, observations: Mapping[str, Any]) -> Work:
        """One observation's part of one iteration of the fit of the Gaussian."""
        gaussian = self.entry["gaussian"]
        if math.prod(self.shape) > declared.dense_size():
            # An iteration draws one exact sample an observation, and that is nearly all of it.
            return self.exact(observations, self.entry["e_step"]["block"])
        key, most = [gaussian, observations], gaussian["observations"]
        return self._work("fitting", key, most, observations=observations)

    def posterior(self, observations: Mapping[str, Any], e_step: Mapping[str, Any]) -> Work:
        """One evaluation of a posterior denoiser, with the sampler's part of it."""
        e_step = {**e_step, "compile": False}
        # How much is hidden, the noise and the number of steps are of no weight, sizes are.
        settings = {**e_step, "sampler": {**e_step["sampler"], "steps": 0}}
        settings = {key: settings[key] for key in settings if key not in OF_LAPS}
        operator = observations.get("path") or {
            key: value for key, value in observations["operator"].items() if key not in HIDING
        }
        prior = (self.entry[part] for part in ("network", "schedule", "gaussian"))
        key = [settings, operator, observations.get("samples"), *prior]
        # A product with the Jacobian costs about another pass.
        passes = 1 + declared.products(e_step)
        most = 17 * e_step["block"]
        return self._work("posterior", key, most, passes, observations=observations, e_step=e_step)

    def prior(self, block: int, sampler: Mapping[str, Any]) -> Work:
        """One evaluation of the prior's denoiser, with the sampler's part of it."""
        key = [block, self.entry["network"], self.entry["schedule"]]
        key += [sampler["name"], declared.evaluations_per_step(sampler)]
        return self._work("prior", key, 17 * block, 1, block=block, sampler=sampler)

    def training(self, m_step: Mapping[str, Any]) -> Work:
        """One sample's part of an optimizer step."""
        m_step = {**m_step, "compile": False}
        others = ("steps", "epochs", "first", "final", "final_decay", "warm_start")
        rest = {key: m_step[key] for key in m_step if key not in others}
        key = [rest, self.entry["network"], self.entry["schedule"]]
        most = declared.CHUNK * m_step["batch"]
        return self._work("training", key, most, 3, m_step=m_step)

    def trainings(self, m_step: Mapping[str, Any], samples: int, validation: int) -> Amounts:
        """The optimizer steps of a training on some samples, its validation losses and errors."""
        steps, batch = optimizer_steps(m_step, samples), m_step["batch"]
        losses = validation * (1 + math.ceil(steps / declared.CHUNK))
        errors = declared.ERROR_LEVELS * min(declared.ERROR_SAMPLES, validation)
        return {
            self.training(m_step): steps * batch,
            self.prior(batch, {"name": "ddim", "steps": 1}): losses + errors,
        }

    def flops(self, work: Amounts) -> float:
        """The network's floating-point operations in some work, from what the network declares."""
        passes = sum(count * kind.passes for kind, count in work.items())
        return 2 * passes * self.network.multiplications(self.shape)

    def prior_bytes(self, trained: bool = True) -> float:
        """The bytes of a prior: its Gaussian and its network's weights."""
        values = math.prod(self.shape) * (1 + self.entry["gaussian"]["rank"])
        if not trained:
            return FLOAT * values
        return FLOAT * (values + self._weights()) + declared.CARD_BYTES

    def _weights(self) -> int:
        """Returns the number of the network's weights, which are not allocated."""
        import torch

        with torch.device("meta"):
            return sum(w.numel() for w in self.network.build(self.shape).parameters())
