"""The laps of a fit: the same functions as the workflow's jobs call, one after another.

Every stage has the inputs and settings that :class:`diem.config.inputs.Inputs` gives the job of the
same name, and writes the same files. What is there is not made again.
"""

import contextlib
import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tqdm.auto import tqdm

from diem.config.inputs import Inputs
from diem.data.ingest import ingest
from diem.data.observations import Observations
from diem.diffusion.prior import read_prior
from diem.em.e_step import EStep, e_step
from diem.em.gaussian_prior import gaussian_prior
from diem.em.laps import lap_name, with_batch
from diem.em.m_step import Lap, m_step
from diem.em.restart import Restart
from diem.evaluation.selection import (
    read_selection,
    select_laps,
    selected,
    selection_told,
    write_selected,
)
from diem.evaluation.written import Settings, write_evaluation
from diem.in_python.settings import EXPERIMENT, OBSERVATIONS, RUN
from diem.jobs.code import code_digest
from diem.jobs.job import Job
from diem.jobs.results import remove_pieces
from diem.jobs.resume import Pieces, fingerprint
from diem.report.export import export
from diem.report.tables.laps import readable_selection
from diem.report.tables.writing import write_table
from diem.versions import of_code

__all__ = ["Laps"]


class Laps:
    """The laps of a fit, in a folder of results.

    Arguments:
        config: The resolved configuration, whose ``results`` are the folder.
        source: The file of observations as they were given.
        device: The device.
        progress: Whether bars and a line for each lap tell how far it is.
    """

    def __init__(
        self, config: Mapping[str, Any], source: Path, device: torch.device, progress: bool
    ) -> None:
        self.config, self.source, self.device, self.progress = config, source, device, progress
        self.inputs = Inputs(config)
        self.paths = self.inputs.paths
        self.run = config["experiments"][EXPERIMENT]["runs"][RUN]
        self.last = self.run["laps"]
        self.code = of_code(code_digest(__file__, [config["experiments"][EXPERIMENT]]))
        self.set = self._names(observations=OBSERVATIONS)

    def learn(self, output: Path) -> None:
        """Learns the prior, and exports the one of the chosen lap.

        Arguments:
            output: The file of the prior to write; its card for readers goes beside it.
        """
        self._ingest()
        self._gaussian()
        self._evaluate(self.set, 0, self.inputs.floor_input, self.inputs.floor_card)
        evaluated = self.paths.evaluated(EXPERIMENT, RUN)
        for number in range(1, self.last + 1):
            lap = self._names(run=RUN, lap=lap_name(self.run, number))
            self._e_step(lap, number)
            self._m_step(lap, number)
            if number in evaluated:
                self._evaluate(lap, number, self.inputs.lap_input, self.inputs.lap_card)
        chosen = self._choose()
        export(chosen.parents[1], output)

    def _names(self, **wildcards: str) -> Any:
        """Returns the names of a job, as the workflow's rules have them."""
        return SimpleNamespace(experiment=EXPERIMENT, **wildcards)

    def _make(
        self,
        stage: tuple[str, str],
        outputs: list[str],
        files: list[str],
        settings: Any,
        make: Callable[[Job], None],
    ) -> None:
        """Makes the files of a stage, unless they are there.

        Arguments:
            stage: What it is called, and what its bar counts.
            outputs: The files.
            files: The files that it reads.
            settings: All else that its pieces depend on.
            make: Makes the files.
        """
        if not all(Path(output).is_file() for output in outputs):
            made_of = fingerprint(files, settings, self.code["code"], device=self.device)
            seconds = self.config["checkpoint_seconds"]
            with Pieces(outputs[0], made_of, seconds) as pieces, self._bar(*stage) as bar:
                cache_mb = self.config["cache_mb"]
                make(Job(self.config["seed"], self.device, pieces, bar, cache_mb))
        remove_pieces(*outputs)

    @contextlib.contextmanager
    def _bar(self, name: str, unit: str) -> Iterator[tqdm]:
        with tqdm(desc=name, unit=f" {unit}", leave=False, disable=not self.progress) as bar:
            yield bar

    def _tell(self, sentence: str) -> None:
        if self.progress:
            tqdm.write(sentence)

    def _of_lap(self, number: int) -> str:
        return f"lap {number} of {self.last}" if number else "Gaussian prior"

    # The stages

    def _observations(self) -> str:
        return self.paths.observations(EXPERIMENT, OBSERVATIONS, "observations.h5")

    def _ingest(self) -> None:
        output, names = Path(self._observations()), self.set
        if not output.is_file():
            entry, data = self.inputs.observations(names), self.inputs.experiment(names)["data"]
            ingest(self.source, output, entry, data, self.config["seed"], EXPERIMENT)

    def _gaussian(self) -> None:
        entry = self.inputs.experiment(self.set)["gaussian"]
        card = {"experiment": EXPERIMENT, **self.inputs.learned_from(self.set), **self.code}
        source, output = self._observations(), self.paths.gaussian(EXPERIMENT, OBSERVATIONS)

        def make(job: Job) -> None:
            job.progress.reset(total=entry["iterations"])
            with Observations(source) as file:
                gaussian_prior(output, file, entry, card, job)

        stage = (self._of_lap(0), "iteration")
        self._make(stage, [output], [source], [entry, self.config["seed"]], make)

    def _e_step(self, names: Any, number: int) -> None:
        files, entry = self.inputs.e_step_input(names), self.inputs.e_step(names)
        network = self.inputs.experiment(names)["network"]
        (output,) = self.paths.samples(EXPERIMENT, RUN, names.lap)
        previous = files.get("previous", [])

        def make(job: Job) -> None:
            prior = read_prior(files["prior"], network=network)
            restart = Restart.from_config(entry, number, previous)
            with Observations(files["observations"]) as observations:
                settings = EStep.from_config(with_batch(entry, self.config, vars(names)))
                e_step(output, prior, observations, settings, number, job, restart=restart)

        read = [files["prior"], files["observations"], *previous]
        settings = [entry, network, self.config["seed"], number]
        stage = (f"{self._of_lap(number)}: E-step", "observation")
        self._make(stage, [output], read, settings, make)

    def _m_step(self, names: Any, number: int) -> None:
        files, entry = self.inputs.m_step_input(names), self.inputs.experiment(names)
        output, losses = (
            self.paths.lap(EXPERIMENT, RUN, names.lap, name)
            for name in ("prior.safetensors", "losses.csv")
        )
        made = self.inputs.provenance(names)
        lap = Lap(
            number=number,
            samples=files["samples"],
            m_step=self.inputs.m_step(names),
            network=entry["network"],
            schedule=entry["schedule"],
            gaussian=entry["gaussian"],
            previous=files.get("prior"),
            card={"experiment": EXPERIMENT, "run": RUN, **made, **self.code},
            on_divergence=self.config["on_divergence"],
            checkpoint_seconds=self.config["checkpoint_seconds"],
        )
        stage = (f"{self._of_lap(number)}: M-step", "step")
        # It keeps a checkpoint in the place of pieces, with what that depends on.
        self._make(stage, [output, losses], [], [], lambda job: m_step(lap, output, losses, job))
        with Path(losses).open(newline="") as file:
            *_, end = csv.DictReader(file)
        loss, held_out = float(end["loss"]), float(end["validation_loss"])
        self._tell(f"{self._of_lap(number)}: loss {loss:.4f}, {held_out:.4f} of validation samples")

    def _evaluate(
        self,
        names: Any,
        number: int,
        inputs: Callable[[Any], dict[str, Any]],
        card: Callable[[Any], dict[str, Any]],
    ) -> None:
        (metrics, samples), files = self._evaluation(number), inputs(names)
        drawing = self.inputs.drawing(names)
        settings = Settings(
            card(names),
            self.inputs.evaluation(names),
            with_batch(drawing, self.config, vars(names)),
            self.inputs.experiment(names)["data"],
        )
        read = [files["prior"], files["observations"], *files.get("samples", [])]
        stage = (f"{self._of_lap(number)}: predictions", "sample")
        self._make(
            stage,
            [metrics, samples],
            read,
            [*settings._replace(e_step=drawing), self.config["seed"]],
            lambda job: write_evaluation(metrics, samples, files, settings, job),
        )

    def _evaluation(self, number: int) -> list[str]:
        """Returns the files of the evaluation of a lap, or of the Gaussian prior."""
        names = ("metrics.csv", "evaluation.h5")
        if number == 0:
            return [self.paths.floor(EXPERIMENT, OBSERVATIONS, name) for name in names]
        return [self.paths.lap(EXPERIMENT, RUN, number, name) for name in names]

    def _choose(self) -> Path:
        """Chooses the lap, and returns the file of its prior."""
        laps = [0, *self.paths.evaluated(EXPERIMENT, RUN)]
        metrics, evaluations = zip(*map(self._evaluation, laps), strict=True)
        found = select_laps(metrics, evaluations, {RUN: self.run["label"]})
        name = f"{EXPERIMENT}_chosen_lap"
        kinds = ("csv", "markdown", "latex", "html")
        files = dict(zip(kinds, self.paths.table(name), strict=True))
        write_table(files, found, readable_selection(found))
        table = read_selection(files["csv"])
        output = self.paths.selected_prior(EXPERIMENT, RUN)
        priors = [self.paths.prior(EXPERIMENT, RUN, lap) for lap in laps]
        source = Path(files["csv"]).relative_to(self.paths.results).as_posix()
        write_selected(output, table, source, RUN, priors)
        self._tell(selection_told(selected(table, RUN)))
        return Path(output)
