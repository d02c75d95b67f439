"""What the jobs of an experiment do, and its stages.

This is the one place that knows what an E-step, an M-step or an evaluation does.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diem.config.resolve import posterior_settings
from diem.data.sets import DATASETS
from diem.diffusion.outside import outside_e_step
from diem.em.laps import (
    ceiling_settings,
    ceiling_training,
    ceilings,
    evaluated_laps,
    restart_level,
    sampled,
    sampling_of_lap,
    training_of_lap,
)
from diem.evaluation.metrics import METRICS
from diem.planning import declared
from diem.planning.work import FLOAT, Amounts, Kinds, Stage, samples_by_split, summed
from diem.replicates import all_entries

__all__ = ["Experiment"]


class Experiment:
    """What the jobs of an experiment do, and its stages.

    Arguments:
        config: The configuration.
        name: The experiment's name.

    Attributes:
        shape: The event's shape.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.config, self.name = config, name
        self.entry = all_entries(config, "experiments")[name]
        data = DATASETS.parse(self.entry["data"])
        self.shape = data.event_shape()
        self.kinds = Kinds(self.entry, self.shape)
        self.own = "clean" not in data.facts
        self.event_bytes = FLOAT * math.prod(self.shape)

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples by split.

        Raises:
            DiemError: If only files can tell, and they are not there.
        """
        return samples_by_split(self.entry["data"])

    @property
    def total(self) -> int:
        """The number of samples of all splits."""
        return sum(self.counts.values())

    # What one job does

    def observations(self, name: str) -> dict[str, Any]:
        """Returns an entry of ``observations``, with the file of the user's own ones."""
        file = ("path", "offset", "scale", "links") if self.own else ()
        return {**self.entry["observations"][name], **{k: self.entry["data"][k] for k in file}}

    def sampled(self, run: str, lap: int) -> dict[str, int]:
        """Returns how many posterior samples a lap draws, by split."""
        entry = self.entry["runs"][run]
        e_step = sampling_of_lap(entry["e_step"], lap == entry["laps"])
        return {split: sampled(e_step, self.counts[split]) for split in ("train", "validation")}

    def drawn(self, observations: str, e_step: Mapping[str, Any], draws: float) -> Amounts:
        """What it takes to draw posterior samples with a network."""
        work = self.kinds.posterior(self.observations(observations), e_step)
        return {work: draws * declared.evaluations(e_step["sampler"])}

    def e_step(self, run: str, lap: int) -> Amounts:
        """An E-step, of all shards together."""
        entry, samples = self.entry["runs"][run], sum(self.sampled(run, lap).values())
        observations = entry["observations"]
        e_step = sampling_of_lap(entry["e_step"], lap == entry["laps"])
        exact: Amounts = {
            self.kinds.exact(self.observations(observations), e_step["block"]): samples
        }
        if lap == 1:
            return exact
        drawn = self.drawn(observations, e_step, samples)
        restarts = restart_level(e_step["restart"], lap) is not None
        # What could take the place of samples that contradict their observation.
        redrawn = exact if restarts and e_step["restart_residual"] is not None else {}
        return summed([drawn, redrawn])

    def m_step(self, run: str, lap: int) -> Amounts:
        """An M-step."""
        entry, sampled = self.entry["runs"][run], self.sampled(run, lap)
        training = training_of_lap(entry["m_step"], lap, lap == entry["laps"])
        return self.kinds.trainings(training, sampled["train"], sampled["validation"])

    def ceiling(self, run: str) -> Amounts:
        """The training of a run's ceiling on clean data."""
        settings = ceiling_settings(self.entry["runs"][run])
        training = ceiling_training(settings, self.counts["train"])
        return self.kinds.trainings(training, self.counts["train"], self.counts["validation"])

    def floor(self, observations: str) -> Amounts:
        """An evaluation of the Gaussian prior."""
        block = self.entry["e_step"]["block"]
        return {self.kinds.exact(self.observations(observations), block): self.evaluated}

    def evaluation(self, observations: str, e_step: Mapping[str, Any]) -> Amounts:
        """An evaluation of a prior with a network, by samples of it and of posteriors."""
        entry, e_step = self.entry["evaluation"], self.outside(e_step)
        work = self.kinds.prior(entry["block"], entry["sampler"])
        evaluations = entry["samples"] * declared.evaluations(entry["sampler"])
        return summed([{work: evaluations}, self.drawn(observations, e_step, self.evaluated)])

    def reconstruction(self, observations: str, run: str) -> Amounts:
        """The reconstruction of other observations by a run's prior."""
        e_step = self.outside(self.entry["runs"][run]["e_step"])
        exact = self.kinds.exact(self.observations(observations), e_step["block"])
        # Beside a network's samples: the Gaussian's, and its mean, which is solved as one of them.
        by_gaussian: Amounts = {exact: self.shown * (self.draws + 1)}
        return summed([self.drawn(observations, e_step, self.shown * self.draws), by_gaussian])

    def outside(self, e_step: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an ``e_step`` entry as evaluations draw posteriors by it."""
        return outside_e_step(e_step, posterior_settings(self.entry["evaluation"]["posterior"]))

    @property
    def draws(self) -> int:
        """The posterior samples of a test observation."""
        return self.entry["evaluation"]["posterior_samples"]

    @property
    def shown(self) -> int:
        """The test observations of an evaluation."""
        return min(self.entry["evaluation"]["test_observations"], self.counts["test"])

    @property
    def evaluated(self) -> int:
        """The posterior samples of an evaluation."""
        entry = self.entry["evaluation"]
        metrics = map(METRICS.parse, entry["metrics"])
        return self.shown * self.draws + sum(m.draws(entry, self.counts) for m in metrics)

    # The stages

    def stages(self) -> Iterator[Stage]:
        """Yields the stages, from first to last."""
        yield self._observations()
        yield self._gaussian()
        for run in self.entry["runs"]:
            yield from self._laps(run)
        named = list(dict.fromkeys(run for of_set in self.ceilings.values() for run in of_set))
        for run in named:
            shown = run if len(named) > 1 else ""
            size = self.kinds.prior_bytes()
            yield Stage(self.name, "ceiling", shown, 1, self.ceiling(run), size)
        yield self._evaluation()
        if self.entry["evaluation"]["reconstruct"]:
            yield self._reconstructions()

    @property
    def ceilings(self) -> dict[str, list[str]]:
        """The ceilings by observations, where there are clean data to train them on."""
        if self.own:
            return {name: [] for name in self.used}
        return {name: list(of_set) for name, of_set in ceilings(self.entry).items()}

    @property
    def used(self) -> list[str]:
        """The observations of the runs, by name."""
        return list(dict.fromkeys(run["observations"] for run in self.entry["runs"].values()))

    @functools.cached_property
    def observation_bytes(self) -> dict[str, float]:
        """The bytes of an observation on disk, with its operator and its index, by name."""
        names = dict.fromkeys([*self.used, *self.entry["evaluation"]["reconstruct"]])
        if self.own:
            size = Path(self.entry["data"]["path"]).stat().st_size
            return dict.fromkeys(names, size / self.total)
        return {name: _simulated_bytes(self.observations(name), self.shape) for name in names}

    def _observations(self) -> Stage:
        sizes = self.observation_bytes
        kinds = [] if self.own else [self.kinds.observing(self.observations(k)) for k in sizes]
        clean = 0 if self.own else self.event_bytes
        return Stage(
            *(self.name, "observations", "", len(sizes) + (not self.own)),
            summed({work: self.total} for work in kinds),
            self.total * (sum(sizes.values()) + clean),
            network=False,
        )

    def _gaussian(self) -> Stage:
        gaussian = self.entry["gaussian"]
        taken = -(-min(self.counts["train"], gaussian["observations"]) // gaussian["every"])
        fitted = taken * gaussian["iterations"]
        return Stage(
            *(self.name, "Gaussian fit", "", len(self.used)),
            summed({self.kinds.fitting(self.observations(name)): fitted} for name in self.used),
            len(self.used) * self.kinds.prior_bytes(trained=False),
            network=False,
        )

    def _laps(self, run: str) -> Iterator[Stage]:
        count = self.entry["runs"][run]["laps"]
        laps = range(1, count + 1)
        # The last lap's samples are the most.
        held = laps if self.config["keep_samples"] else laps[-self._laps_held(run) :]
        samples = sum(sum(self.sampled(run, lap).values()) for lap in held)
        stored = np.dtype(self.entry["runs"][run]["e_step"]["storage"]).itemsize
        size = math.prod(self.shape) * stored + 8
        work = summed(self.e_step(run, lap) for lap in laps)
        shards = self.config["shards"]
        jobs = count * (shards if shards == 1 else shards + 1)  # one gathers them
        yield Stage(self.name, "E-steps", run, jobs, work, samples * size)
        work = summed(self.m_step(run, lap) for lap in laps)
        yield Stage(self.name, "M-steps", run, count, work, count * self.kinds.prior_bytes())

    def _laps_held(self, run: str) -> int:
        """Returns of how many laps the samples are there at once, where they are not kept.

        Snakemake prefers jobs after which samples can go, so that an evaluation comes first, or
        beside the next E-step.
        """
        laps, e_step = self.entry["runs"][run]["laps"], self.entry["runs"][run]["e_step"]
        # The second lap does not start from the first one's samples.
        restarts = e_step["restart"] is not None and laps > 2
        return 2 if restarts or len(evaluated_laps(self.entry, run)) > 1 else 1

    def _evaluation(self) -> Stage:
        """The evaluations of laps, floors and ceilings."""
        jobs, work = {name: 1 + len(self.ceilings[name]) for name in self.used}, []
        for key, run in self.entry["runs"].items():
            laps, name = len(evaluated_laps(self.entry, key)), run["observations"]
            jobs[name] += laps
            work += laps * [self.evaluation(name, run["e_step"])]
        for name, of_set in self.ceilings.items():
            work += [self.evaluation(name, self.entry["runs"][run]["e_step"]) for run in of_set]
        work += [self.floor(name) for name in self.used]
        samples = self.entry["evaluation"]["samples"] + self.shown * self.draws
        each = (samples + self.shown * (1 if self.own else 2)) * self.event_bytes
        sizes = self.observation_bytes
        return Stage(
            *(self.name, "evaluation", "", sum(jobs.values()), summed(work)),
            sum(count * (each + self.shown * sizes[name]) for name, count in jobs.items()),
        )

    def _reconstructions(self) -> Stage:
        names, runs = self.entry["evaluation"]["reconstruct"], self.entry["runs"]
        count, drawn = len(names) * len(runs), self.shown * (self.draws + 2)
        rest = sum(self.observation_bytes[name] for name in names)
        return Stage(
            *(self.name, "reconstructions", "", count),
            summed(self.reconstruction(name, run) for name in names for run in runs),
            count * drawn * self.event_bytes + len(runs) * self.shown * rest,
        )


def _simulated_bytes(observations: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    from diem import operators
    from diem.seeds import Stage as Stream
    from diem.seeds import rng

    stream = rng(0, Stream.CORRUPTION)
    operator = operators.simulate(observations["operator"], shape, 4, stream)
    each = [v for v in operator.parameters.values() if len(v) == 4]
    parameters = sum(v.nbytes for v in each) / 4
    return FLOAT * math.prod(operator.observation_shape) + parameters + 8
