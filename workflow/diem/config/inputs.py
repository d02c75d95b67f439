"""What each job of the DAG reads and is told: functions of a configuration and a job's wildcards.

A job's wildcards are an object with the attributes ``experiment``, ``run``, ``lap``, ... as texts,
which is what Snakemake hands to input functions.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from diem.config.paths import Paths
from diem.config.resolve import posterior_settings
from diem.data.sets import DATASETS
from diem.diffusion.outside import outside_e_step
from diem.em.laps import (
    OF_LAPS,
    SHARDS,
    ceiling_labels,
    ceiling_settings,
    is_final,
    lap_number,
    repeats_of_lap,
    sampling_of_lap,
    training_of_lap,
    without_batch,
)
from diem.errors import DiemError
from diem.evaluation.metrics import find_all
from diem.jobs.contents import known_digest
from diem.replicates import all_entries, seed_of
from diem.report.figures.base import figure_named
from diem.report.figures.files import Evaluated, evaluated

__all__ = ["OWN", "Inputs", "input_digest"]

OWN = "own"
"""The name of a job's input that is a file of the user's, which a parameter tells the digest of."""

NO_NUMBER = ("laps", "inception_weights", "dinov2_weights", "reconstruct")
"""The keys of ``evaluation`` that change no number of an evaluation."""


class Wildcards(Protocol):
    """The names of a job."""

    experiment: str
    observations: str
    run: str
    lap: str
    posterior: str
    comparison: str
    network: str


class Inputs:
    """The inputs and parameters of jobs.

    Arguments:
        config: The configuration, see :func:`diem.config.resolve.resolve`.
        is_made: Whether a rule makes a file.
    """

    def __init__(
        self, config: Mapping[str, Any], is_made: Callable[[str], bool] = lambda path: False
    ) -> None:
        self.config, self.is_made = config, is_made
        self.paths = Paths(config)

    # Entries

    def experiment(self, names: Wildcards) -> dict[str, Any]:
        return self.paths.experiments[names.experiment]

    def run(self, names: Wildcards) -> dict[str, Any]:
        return self.experiment(names)["runs"][names.run]

    def observations(self, names: Wildcards) -> dict[str, Any]:
        return self.experiment(names)["observations"][names.observations]

    def feature_weights(self, names: Wildcards) -> str:
        """Returns the user's file of a network's weights, or the one that is downloaded."""
        key = f"{names.network}_weights"
        if given := self.experiment(names)["evaluation"][key]:
            self._check_given(given, f"experiments.{names.experiment}.evaluation.{key}")
        return getattr(self.paths, key)(names.experiment)

    def posterior(self, names: Wildcards) -> dict[str, Any]:
        return self.config["posterior"][names.posterior]

    def comparison(self, names: Wildcards) -> dict[str, Any]:
        return all_entries(self.config, "restoration")[names.comparison]

    def seed(self, names: Wildcards) -> int:
        """Returns the seed of a job of an experiment or of a comparison."""
        for section, key in (("experiments", "experiment"), ("restoration", "comparison")):
            if hasattr(names, key):
                return seed_of(self.config, section, getattr(names, key))
        return self.config["seed"]

    def training_setting(self, key: str) -> Callable[[Wildcards], Any]:
        """Returns a function that looks a section of a comparison's training up."""
        return lambda names: self.comparison(names)["train"][key]

    def setting(self, key: str) -> Callable[[Wildcards], Any]:
        """Returns a function that looks a section of an experiment up."""
        return lambda names: self.experiment(names)[key]

    def labels(self, names: Wildcards) -> dict[str, str]:
        """Returns the label of each run."""
        return {name: run["label"] for name, run in self.experiment(names)["runs"].items()}

    # Data

    def clean_data_input(self, names: Wildcards) -> dict[str, str]:
        """Returns what is downloaded because the configuration gives no path to it."""
        name = DATASETS.parse(self.experiment(names)["data"]).downloads()
        return {} if name is None else {"path": self.paths.download(name)}

    def data_file(self, names: Wildcards) -> str:
        """Returns the user's own file of observations."""
        return self.experiment(names)["data"]["path"]

    def data_content(self, names: Wildcards) -> str:
        """Returns the digest of the user's own file, by which it is known in another place."""
        return known_digest(self.data_file(names))

    def told_operator(self, names: Wildcards) -> str | None:
        """Returns the operator that the user's own file names, of which no setting may tell."""
        told = DATASETS.parse(self.experiment(names)["data"]).told()
        return None if told is None else told.operator

    def data(self, names: Wildcards) -> dict[str, Any]:
        """Returns the ``data`` entry that numbers depend on, not where a user's file lies."""
        entry = self.experiment(names)["data"]
        own = not self.paths.has_clean(names.experiment)
        return {key: value for key, value in entry.items() if not (own and key == "path")}

    def learned_from(self, names: Wildcards, observations: str | None = None) -> dict[str, Any]:
        """Returns what a prior was learned from, for its card; it also tells the data's units."""
        entry, name = self.experiment(names), observations or names.observations
        return {
            "data": self.data(names),
            "observations": {"name": name, **entry["observations"][name]},
        }

    # Laps

    def e_step_input(self, names: Wildcards) -> dict[str, Any]:
        """The chain's recursion: a lap samples with the prior of the lap before."""
        run, lap = self.run(names), lap_number(names.lap)
        paths, key = self.paths, (names.experiment, names.run)
        files: dict[str, Any] = {
            "prior": paths.prior(*key, lap - 1),
            "observations": paths.observations(
                names.experiment, run["observations"], "observations.h5"
            ),
        }
        if run["e_step"]["restart"] is not None and lap > 2:
            files["previous"] = paths.samples(*key, lap - 1)
        return files

    def gathered_input(self, names: Wildcards) -> dict[str, Any]:
        """Returns the shards of a lap's samples, and what they were drawn with."""
        shards = self.paths.shards(names.experiment, names.run, names.lap)
        return {**self.e_step_input(names), SHARDS: shards}

    def e_step(self, names: Wildcards) -> dict[str, Any]:
        """Returns the settings of one lap's E-step."""
        return sampling_of_lap(without_batch(self.run(names)["e_step"]), is_final(names.lap))

    def m_step_input(self, names: Wildcards) -> dict[str, Any]:
        lap, key = lap_number(names.lap), (names.experiment, names.run)
        files: dict[str, Any] = {"samples": self.paths.samples(*key, names.lap)}
        if self.run(names)["m_step"]["warm_start"] and lap > 1:
            files["prior"] = self.paths.prior(*key, lap - 1)
        return files

    def m_step(self, names: Wildcards) -> dict[str, Any]:
        """Returns the settings of one lap's training.

        Its number of steps is settled here, so that a change of the last lap runs only that again.
        """
        lap = lap_number(names.lap)
        return training_of_lap(self.run(names)["m_step"], lap, is_final(names.lap))

    def ceiling(self, names: Wildcards) -> dict[str, Any]:
        return ceiling_settings(self.run(names))

    def ceiling_labels(self, names: Wildcards) -> dict[str, dict[str, str]]:
        return ceiling_labels(self.experiment(names))

    def ceiling_provenance(self, names: Wildcards) -> dict[str, Any]:
        return {"run": f"ceiling of {names.run}", "data": self.data(names)}

    def provenance(self, names: Wildcards) -> dict[str, Any]:
        """Returns what made a prior beside the settings of its training, for its card."""
        run = self.run(names)
        learned_from = self.learned_from(names, run["observations"])
        e_step = repeats_of_lap(without_batch(run["e_step"]), is_final(names.lap))
        return {**learned_from, "e_step": e_step}

    # Evaluation

    def evaluation(self, names: Wildcards) -> dict[str, Any]:
        """Returns the settings of an evaluation that its numbers depend on."""
        entry = self.experiment(names)["evaluation"]
        return {key: value for key, value in entry.items() if key not in NO_NUMBER}

    def reconstruction(self, names: Wildcards) -> dict[str, Any]:
        """Returns the settings of an evaluation that a reconstruction's numbers depend on."""
        entry = self.experiment(names)["evaluation"]
        return {key: entry[key] for key in ("test_observations", "posterior_samples")}

    def drawing(self, names: Wildcards) -> dict[str, Any]:
        """Returns how an evaluation draws posteriors: by a run's ``e_step``, or by all runs'."""
        entry = self.experiment(names)
        e_step = entry["runs"][names.run]["e_step"] if hasattr(names, "run") else entry["e_step"]
        changes = posterior_settings(entry["evaluation"]["posterior"])
        e_step = {key: value for key, value in e_step.items() if key not in OF_LAPS}
        return outside_e_step(without_batch(e_step), changes)

    def _evaluation_input(self, names: Wildcards, observations: str, prior: str) -> dict[str, Any]:
        experiment, paths = names.experiment, self.paths
        files: dict[str, Any] = {
            "prior": prior,
            "observations": paths.observations(experiment, observations, "observations.h5"),
            **paths.clean_if_any(experiment),
        }
        for metric in find_all(self.experiment(names)["evaluation"]["metrics"]):
            for name in metric.inputs:
                files[name] = getattr(paths, name)(experiment)
        return files

    def lap_input(self, names: Wildcards) -> dict[str, Any]:
        """Returns what the evaluation of a lap reads."""
        key = (names.experiment, names.run, names.lap)
        observations = self.run(names)["observations"]
        files = self._evaluation_input(names, observations, self.paths.prior(*key))
        return {**files, "samples": self.paths.samples(*key)}

    def floor_input(self, names: Wildcards) -> dict[str, Any]:
        """The floor is the fitted Gaussian."""
        prior = self.paths.gaussian(names.experiment, names.observations)
        return self._evaluation_input(names, names.observations, prior)

    def ceiling_input(self, names: Wildcards) -> dict[str, Any]:
        """The ceiling is the prior trained on clean data."""
        prior = self.paths.ceiling(names.experiment, names.run, "prior.safetensors")
        return self._evaluation_input(names, names.observations, prior)

    def lap_card(self, names: Wildcards) -> dict[str, Any]:
        return {
            "experiment": names.experiment,
            "run": names.run,
            "observations": self.run(names)["observations"],
            "stage": "lap",
            "lap": lap_number(names.lap),
        }

    def floor_card(self, names: Wildcards) -> dict[str, Any]:
        return self._bound_card(names, "floor", "floor")

    def ceiling_card(self, names: Wildcards) -> dict[str, Any]:
        return self._bound_card(names, "ceiling", names.run)

    def _bound_card(self, names: Wildcards, stage: str, run: str) -> dict[str, Any]:
        card = {"experiment": names.experiment, "run": run, "observations": names.observations}
        return {**card, "stage": stage, "lap": 0}

    def reconstruct_input(self, names: Wildcards) -> dict[str, str]:
        """The last lap's prior, and the Gaussian prior that the run began with."""
        key = (names.experiment, names.run)
        return {
            "prior": self.paths.prior(*key, self.paths.last_lap(*key)),
            "gaussian": self.paths.prior(*key, 0),
            "observations": self.paths.observations(
                names.experiment, names.observations, "observations.h5"
            ),
            "clean": self.paths.clean(names.experiment),
        }

    def reconstruct_card(self, names: Wildcards) -> dict[str, Any]:
        return {
            "experiment": names.experiment,
            "run": names.run,
            "observations": names.observations,
            "lap": self.run(names)["laps"],
        }

    # Figures and tables

    def figure_input(self, names: Wildcards, spec: Any) -> dict[str, Any]:
        """Returns what a figure's declaration says that it reads.

        Arguments:
            names: The job's wildcards.
            spec: The figure's entry in the configuration.
        """
        reads, experiment, paths = figure_named(spec).reads, names.experiment, self.paths
        files: dict[str, Any] = {}
        if reads.rows:
            files["metrics"] = paths.metrics(experiment)
        if reads.truth:
            files |= paths.clean_if_any(experiment)
        if reads.losses:
            files["losses"] = paths.losses(experiment)
        if reads.chosen and paths.selects(experiment):
            files["chosen"] = paths.table(f"{experiment}_chosen_lap")[0]
        if reads.stages:
            found = evaluated(reads, self.experiment(names), paths.has_clean(experiment))
            files["evaluations"] = [self._evaluation_file(experiment, each) for each in found]
        return files

    def _evaluation_file(self, experiment: str, found: Evaluated) -> str:
        if found.stage == "lap":
            return self.paths.lap(experiment, found.run, found.lap, "evaluation.h5")
        if found.stage == "reconstruction":
            return self.paths.reconstruction(
                experiment, found.run, found.observations, "evaluation.h5"
            )
        if found.stage == "ceiling":
            file = f"{found.observations}/evaluation.h5"
            return self.paths.ceiling(experiment, found.run, file)
        return self.paths.floor(experiment, found.observations, "evaluation.h5")

    def labels_and_covariances(self, names: Wildcards) -> dict[str, dict[str, str]]:
        """Returns how a table tells the runs apart."""
        return {
            name: {"label": run["label"], "covariance": run["e_step"]["covariance"]}
            for name, run in self.experiment(names)["runs"].items()
        }

    def training_sets(self, names: Wildcards) -> dict[str, str]:
        """Returns the set of observations that each run learns from."""
        return {name: run["observations"] for name, run in self.experiment(names)["runs"].items()}

    def runs_by_setting(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Returns what tells a run from another in a table of published numbers."""
        entry, settings = self.paths.experiments[experiment], {}
        for name, run in entry["runs"].items():
            operator = entry["observations"][run["observations"]].get("operator", {})
            settings[name] = {
                "heuristic": run["e_step"]["covariance"],
                "corruption": operator.get("missing"),
            }
        return settings

    # Selection of the lap

    def selection_input(self, names: Wildcards) -> dict[str, list[str]]:
        """The Gaussian prior of each set of observations, and every evaluated lap of each run."""
        experiment, paths = names.experiment, self.paths
        floors = [
            [paths.floor(experiment, observations, file) for file in EVALUATION]
            for observations in paths.trained_on(experiment)
        ]
        laps = [
            [paths.lap(experiment, run, lap, file) for file in EVALUATION]
            for run in self.experiment(names)["runs"]
            for lap in paths.evaluated(experiment, run)
        ]
        metrics, evaluations = zip(*floors, *laps, strict=True)
        return {"metrics": list(metrics), "evaluations": list(evaluations)}

    def selected_prior_input(self, names: Wildcards) -> dict[str, Any]:
        key = (names.experiment, names.run)
        return {
            "table": f"{self.paths.results}/tables/{names.experiment}_chosen_lap.csv",
            "priors": [self.paths.prior(*key, lap) for lap in (0, *self.paths.evaluated(*key))],
        }

    # Posteriors of new observations

    def posterior_input(self, names: Wildcards) -> dict[str, str]:
        """The prior is a file of the user's, or one that this configuration makes."""
        entry, place = self.posterior(names), f"posterior.{names.posterior}"
        prior = entry["prior"]
        if isinstance(prior, str):
            self._check_given(prior, f"{place}.prior")
        else:
            prior = self.paths.best_prior(**prior)
        self._check_given(entry["observations"], f"{place}.observations")
        return {"prior": prior, "observations": entry["observations"]}

    def _check_given(self, path: str, place: str) -> None:
        """Refuses a file of the user's that is not there, nor can be made here.

        Of a rule whose inputs are missing Snakemake takes the outputs that are there for finished.

        Raises:
            DiemError: If it is not there.
        """
        if not Path(path).is_file() and not self.is_made(path):
            raise DiemError(f"{place}: there is no such file: {path}.")

    def posterior_entry(self, names: Wildcards) -> dict[str, Any]:
        entry = self.posterior(names)
        return {key: entry.get(key) for key in ("operator", "sigma_y", "samples", "batch")}

    def posterior_e_step(self, names: Wildcards) -> dict[str, Any]:
        return posterior_settings(self.posterior(names))

    def posterior_observing(self, names: Wildcards) -> dict[str, Any]:
        """Returns what the file of observations does not tell."""
        return {key: self.posterior(names).get(key) for key in ("operator", "sigma_y")}


EVALUATION = ("metrics.csv", "evaluation.h5")
"""The files of an evaluation."""


def input_digest(files: Any) -> str:
    """Returns a digest of the names of a job's inputs, without those whose names may change.

    Arguments:
        files: The job's inputs, as Snakemake has them: an iterable of names, with ``items``.
    """
    named = dict(files.items())
    free = {*named.get(SHARDS, ()), named.get(OWN)}
    names = sorted(str(name) for name in files if name not in free)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
