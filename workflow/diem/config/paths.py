"""Where every result lies: plain functions of a configuration and of names."""

from collections.abc import Mapping
from typing import Any

from diem.data.sets import DATASETS
from diem.em.laps import ceiling_of, ceilings, evaluated_laps, lap_name
from diem.evaluation.metrics import find_all
from diem.files.downloads import DINOV2_WEIGHTS, INCEPTION_WEIGHTS
from diem.replicates import all_entries, same_entry

__all__ = ["PAGES", "Paths"]

PAGES = "pages"
"""The folder of the pages of single entries, in the folder of the results."""


class Paths:
    """The files of a configuration's results.

    Arguments:
        config: The configuration, see :func:`diem.config.resolve.resolve`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.results = config["results"]
        self.experiments: Mapping[str, Any] = all_entries(config, "experiments")

    # What there is of an experiment

    def has_clean(self, experiment: str) -> bool:
        """Returns whether there are clean data, rather than the user's own observations alone."""
        return "clean" in DATASETS.find(self.experiments[experiment]["data"]["name"]).facts

    def ceilings(self, experiment: str, observations: str) -> list[str]:
        """Returns the ceilings beside a set of observations, by the runs that they are named after.

        A ceiling needs clean data.
        """
        if not self.has_clean(experiment):
            return []
        return list(ceilings(self.experiments[experiment])[observations])

    def selects(self, experiment: str) -> bool:
        """Returns whether the lap to use is selected, by the metric that serves that."""
        metrics = self.experiments[experiment]["evaluation"]["metrics"]
        return any(metric.selects for metric in find_all(metrics))

    def trained_on(self, experiment: str) -> list[str]:
        """Returns the sets of observations that runs learn from."""
        runs = self.experiments[experiment]["runs"].values()
        return list(dict.fromkeys(run["observations"] for run in runs))

    def evaluated(self, experiment: str, run: str) -> list[int]:
        """Returns the laps of a run that are evaluated."""
        return evaluated_laps(self.experiments[experiment], run)

    def last_lap(self, experiment: str, run: str) -> int:
        """Returns the last lap of a run."""
        return self.experiments[experiment]["runs"][run]["laps"]

    # Files of an experiment

    def clean(self, experiment: str) -> str:
        return f"{self.results}/{experiment}/clean.h5"

    def clean_if_any(self, experiment: str) -> dict[str, str]:
        """Returns the clean data as an input, where there are any."""
        return {"clean": self.clean(experiment)} if self.has_clean(experiment) else {}

    def extractor(self, experiment: str) -> str:
        return f"{self.results}/{experiment}/extractor.safetensors"

    def inception_reference(self, experiment: str) -> str:
        return f"{self.results}/{experiment}/inception_reference.safetensors"

    def dinov2_reference(self, experiment: str) -> str:
        return f"{self.results}/{experiment}/dinov2_reference.safetensors"

    def inception_weights(self, experiment: str) -> str:
        """Returns the user's file, or the one that is downloaded."""
        given = self.experiments[experiment]["evaluation"]["inception_weights"]
        return given or self.download(INCEPTION_WEIGHTS)

    def dinov2_weights(self, experiment: str) -> str:
        """Returns the user's file, or the one that is downloaded."""
        given = self.experiments[experiment]["evaluation"]["dinov2_weights"]
        return given or self.download(DINOV2_WEIGHTS)

    def download(self, name: str) -> str:
        return f"{self.results}/downloads/{name}"

    def observations(self, experiment: str, observations: str, name: str) -> str:
        return f"{self.results}/{experiment}/observations/{observations}/{name}"

    def lap(self, experiment: str, run: str, lap: int | str, name: str) -> str:
        """Returns a file of a lap, given its number or its name, see :mod:`diem.em.laps`."""
        if isinstance(lap, int):
            lap = lap_name(self.experiments[experiment]["runs"][run], lap)
        return f"{self.results}/{experiment}/runs/{run}/lap_{lap}/{name}"

    def samples(self, experiment: str, run: str, lap: int | str) -> list[str]:
        """Returns the file of a lap's posterior samples, as a list."""
        return [self.lap(experiment, run, lap, "samples.h5")]

    def shards(self, experiment: str, run: str, lap: int | str) -> list[str]:
        """Returns the parts that a lap's posterior samples are drawn in, where they are several."""
        count = self.config["shards"]
        return [
            self.lap(experiment, run, lap, f"samples_{shard}-of-{count}.h5")
            for shard in range(1, count + 1)
        ]

    def gaussian(self, experiment: str, observations: str) -> str:
        return self.observations(experiment, observations, "gaussian.safetensors")

    def prior(self, experiment: str, run: str, lap: int | str) -> str:
        """Returns the prior after a lap; lap 0 is the Gaussian prior of the run's observations."""
        if lap == 0:
            observations = self.experiments[experiment]["runs"][run]["observations"]
            return self.gaussian(experiment, observations)
        return self.lap(experiment, run, lap, "prior.safetensors")

    def losses(self, experiment: str) -> list[str]:
        """Returns the losses of every lap of every run."""
        return [
            self.lap(experiment, run, lap, "losses.csv")
            for run in self.experiments[experiment]["runs"]
            for lap in range(1, self.last_lap(experiment, run) + 1)
        ]

    def ceiling(self, experiment: str, run: str, name: str) -> str:
        """Returns a file of the ceiling of a run, which runs that train alike share."""
        named = ceiling_of(self.experiments[experiment], run)
        return f"{self.results}/{experiment}/ceilings/{named}/{name}"

    def selected_prior(self, experiment: str, run: str) -> str:
        """Returns the prior of the lap that validation observations have selected."""
        return f"{self.results}/{experiment}/runs/{run}/chosen/prior.safetensors"

    def best_prior(self, experiment: str, run: str, lap: int | None) -> str:
        """Returns the prior of a lap; without one, of the selected lap, or of the last."""
        if lap is None and self.selects(experiment):
            return self.selected_prior(experiment, run)
        return self.prior(experiment, run, self.last_lap(experiment, run) if lap is None else lap)

    def floor(self, experiment: str, observations: str, name: str) -> str:
        """Returns a file of the evaluation of a floor."""
        return self.observations(experiment, observations, f"floor/{name}")

    def metrics(self, experiment: str) -> list[str]:
        """Returns the metric rows of an experiment, at all of its seeds."""
        names = same_entry(self.config, "experiments", experiment)
        return [file for name in names for file in self._metrics_of_seed(name)]

    def _metrics_of_seed(self, experiment: str) -> list[str]:
        """Returns the metric rows of floors, ceilings, and every evaluated lap."""
        sets = self.trained_on(experiment)
        floors = [self.floor(experiment, observations, "metrics.csv") for observations in sets]
        bounds = [
            self.ceiling(experiment, run, f"{observations}/metrics.csv")
            for observations in sets
            for run in self.ceilings(experiment, observations)
        ]
        laps = [
            self.lap(experiment, run, lap, "metrics.csv")
            for run in self.experiments[experiment]["runs"]
            for lap in self.evaluated(experiment, run)
        ]
        return floors + bounds + laps

    def reconstruction(self, experiment: str, run: str, observations: str, name: str) -> str:
        return f"{self.results}/{experiment}/runs/{run}/reconstruction/{observations}/{name}"

    def reconstructions(self, experiment: str) -> list[str]:
        """Returns the metric rows of all reconstructions of an experiment, at all of its seeds."""
        entry = self.experiments[experiment]
        return [
            self.reconstruction(name, run, observations, "metrics.csv")
            for name in same_entry(self.config, "experiments", experiment)
            for observations in entry["evaluation"]["reconstruct"]
            for run in entry["runs"]
        ]

    # What is shown

    def figure(self, name: str) -> list[str]:
        """Returns the files of a figure."""
        return [f"{self.results}/figures/{name}.{kind}" for kind in ("pdf", "png")]

    def table(self, name: str, rows: bool = False) -> list[str]:
        """Returns the files of a table, and with ``rows`` that of the rows that it is made of."""
        endings = [".csv", ".md", ".tex", ".html", *(["_rows.csv"] if rows else [])]
        return [f"{self.results}/tables/{name}{ending}" for ending in endings]

    def page(self, entry: str | None = None) -> str:
        """Returns the page that shows all results, or those of one entry of the configuration."""
        return f"{self.results}/{'index' if entry is None else f'{PAGES}/{entry}'}.html"
