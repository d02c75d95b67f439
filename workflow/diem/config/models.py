"""The configuration as typed models: every key with its type, default, bounds and meaning.

They are the one source of the checks, of the defaults, of the JSON schema for editors and of the
tables of ``config/README.md``. What a component takes is declared by the component.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from diem.components import Count, Integer, Model, Number, Positive, Seed, option, split
from diem.config.entries import Changes, Entry, Names
from diem.config.paper import Heuristics, Restoration
from diem.config.sections import EStep, Evaluation, Gaussian, MStep, Schedule
from diem.config.types import Label, Lap, Name, SigmaY, Text
from diem.data.sets import DATASETS
from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.samplers import SAMPLERS
from diem.errors import DiemError
from diem.networks import NETWORKS
from diem.operators import OPERATORS
from diem.report.figures.base import FIGURES

__all__ = ["Config", "EStep", "Experiment", "MStep", "Run"]


class Run(Model):
    """`runs.<name>`."""

    observations: str = option(..., "its set of observations")
    label: Label = option(
        None, "its name in figures; by default the run's own name", validate_default=False
    )
    laps: Lap = option(None, "EM laps; by default the experiment's", validate_default=False)
    e_step: EStep = option({}, "what of `e_step` is not the experiment's")
    m_step: MStep = option({}, "what of `m_step` is not the experiment's")


class Simulated(Model):
    """`observations.<name>`: a set of observations that are simulated from clean data."""

    operator: Annotated[dict, Entry(OPERATORS)] = option(..., "the forward operator, see below")
    sigma_y: SigmaY = option(
        ..., "the standard deviation of the noise, one number or one a value of an observation"
    )


class OwnOperator(Model):
    """The operator of the user's own observations."""

    name: Annotated[str, Names(OPERATORS, load=False)] = option(
        ..., "a built-in operator, or `module:Class`"
    )


class OwnObservations(Model):
    """`observations.<name>` of the user's own file: what it tells is not given again."""

    operator: OwnOperator | None = option(
        None, "the operator, if the file does not name it", absent=True
    )
    sigma_y: SigmaY | None = option(None, "the noise, if the file does not hold it", absent=True)

    @field_validator("operator", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "class" in value and "name" not in value:
            return {"name" if key == "class" else key: child for key, child in value.items()}
        return value


class Experiment(Model):
    """`experiments.<name>`."""

    recipe: Literal["paper", "fast"] = option(
        "paper", "`paper` or `fast`: the defaults of `e_step` and `m_step`, see below"
    )
    data: Annotated[dict, Entry(DATASETS)] = option(
        ...,
        "the clean data, which serve only to simulate observations and to evaluate; or `hdf5`,"
        " observations of your own without any",
    )
    observations: dict[Name, Any] = option(
        ..., "sets of observations by name: each an `operator` and a `sigma_y`"
    )
    network: Annotated[dict, Entry(NETWORKS)] = option(..., "the denoiser's network")
    schedule: Schedule = option({}, "the noise levels of the diffusion")
    gaussian: Gaussian = option({}, "the fit of the Gaussian prior")
    laps: Lap = option(..., "EM laps; lap 0 is the Gaussian prior", paper="32 / 64 / 16")
    e_step: EStep = option({}, "the first half of a lap: posterior samples of every observation")
    m_step: MStep = option({}, "the second half of a lap: the prior is trained on them")
    evaluation: Evaluation = option({}, "what is measured, and on how much")
    figures: Annotated[list[Any], Names(FIGURES, many=True)] = option(
        [], "which figures are drawn, see below"
    )
    stands_for: str | None = option(
        None,
        "the experiment of `config/paper.yaml` whose place this one takes, in the table of"
        " hyperparameters and in `paper_vs_ours`; by default its own name",
        absent=True,
    )
    published: Literal["cifar10"] | None = option(
        None,
        "the published numbers to set beside the last lap of each run, in"
        " `results/tables/<experiment>_published`: `cifar10`",
        absent=True,
    )
    runs: Annotated[dict[Name, Run], Field(min_length=1)] = option(
        ...,
        "the runs by name: each names its `observations` and overrides `laps`, `e_step` and"
        " `m_step` where it differs; `label` is its name in figures",
    )


class SimulatedExperiment(Experiment):
    """An experiment on clean data, whose observations are simulated."""

    observations: Annotated[dict[Name, Simulated], Field(min_length=1)] = option(
        ..., "sets of observations by name: each an `operator` and a `sigma_y`"
    )


class OwnExperiment(Experiment):
    """An experiment on the user's own observations, of which nothing clean is known."""

    observations: Annotated[dict[Name, OwnObservations], Field(min_length=1)] = option(
        ..., "sets of observations by name: what the file does not tell"
    )


def _kind_of_experiment(entry: Any) -> str:
    """Returns the tag of an experiment's model; what is wrong with its data is told later."""
    data = entry.get("data") if isinstance(entry, dict) else getattr(entry, "data", None)
    try:
        clean = "clean" in DATASETS.find(split(data or {}, "data")[0]).facts
    except DiemError:
        return "[simulated]"
    return "[simulated]" if clean else "[own]"


AnyExperiment = Annotated[
    Annotated[SimulatedExperiment, Tag("[simulated]")] | Annotated[OwnExperiment, Tag("[own]")],
    Discriminator(_kind_of_experiment),
]


class PriorOfRun(Model):
    """`posterior.<name>.prior`, a prior of this configuration."""

    experiment: str = option(..., "the experiment")
    run: str = option(..., "its run")
    lap: Annotated[Integer, Field(ge=0)] | None = option(
        None, "the lap; without it the lap that was chosen, or where none was, the last"
    )


class Posterior(Model):
    """`posterior.<name>`."""

    prior: Text | PriorOfRun = option(
        ...,
        "a prior's file, or `{experiment: ..., run: ..., lap: ...}` of this configuration; without"
        " `lap` the lap that was chosen by validation observations (0 is the Gaussian), or where"
        " none is, the last",
    )
    observations: Text = option(
        ...,
        "a file of observations, as `data: {name: hdf5}` takes it; of all of its splits",
    )
    operator: Annotated[str, Names(OPERATORS, load=False)] | None = option(
        None, "what the file does not tell: a built-in operator or `module:Class`", absent=True
    )
    sigma_y: SigmaY | None = option(
        None, "what the file does not tell: the noise's standard deviation", absent=True
    )
    samples: Integer = option(16, "samples of each observation", ge=2)
    batch: Count = option(
        256, "samples that are drawn at once and share a random stream. It changes the numbers"
    )
    sampler: Annotated[dict, Changes(SAMPLERS)] | None = option(
        None,
        "as in `e_step`, key by key; what is not told is the prior's own, of 32 steps or more",
        absent=True,
    )
    covariance: Annotated[str, Names(COVARIANCES)] | None = option(
        None,
        "as in `e_step`; by default the prior's own, or `measured` if its E-step had a `limit`",
        absent=True,
    )
    iterations: Count | None = option(
        None, "as in `e_step`; by default the prior's own", absent=True
    )
    limit: Positive | None = option(
        None,
        "as in `e_step`, null for none; by default none, or 8 if the prior's E-step had one",
        absent=True,
        nullable=True,
    )


class Config(Model):
    """The whole configuration."""

    seed: Seed = option(0, "the seed of every random stream")
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = option(
        None,
        "several seeds, in the place of `seed`: every experiment and comparison runs at each, and"
        " tables and figures show the mean over them with its standard error (of p-values twice"
        " their mean, which is one again). What else there is"
        " (samples in figures, the chosen lap, `heuristics`, `posterior`) is of the first. The"
        " other ones lie in `results/<experiment>-seed<seed>`, so that seeds can be added later",
    )
    device: Annotated[str, StringConstraints(pattern="^(auto|cpu|mps|cuda(:[0-9]+)?)$")] = option(
        "auto",
        "`auto` (GPUs where there are any), `cpu`, `cuda`, `cuda:1`, `mps`. With `auto` and `cuda`"
        " each job takes a GPU that no other job on the machine has, and waits while there is none",
    )
    threads: Count = option(
        1,
        "CPU threads of each job's linear algebra. Sums are ordered by it, so results can differ in"
        " the last digits between values, and never between numbers of cores",
    )
    shards: Count = option(1, "E-step jobs a lap; any number gives the same samples")
    checkpoint_seconds: Annotated[Number, Field(ge=0)] = option(
        60.0,
        "the least time between two checkpoints of an M-step, or two writes of the finished blocks"
        " of any other long job",
    )
    keep_samples: bool = option(
        True,
        "whether the samples of every lap's E-step stay. With false they are removed as soon as no"
        " job of the plan needs them: the lap's M-step, its evaluation, and with `e_step.restart`"
        " the next E-step. What asks for them later, such as the evaluation of another lap, runs"
        " that lap and those after it anew. `snakemake estimate` then counts the most that is there"
        " at once: one lap's samples of each run, or two's where a lap is evaluated, or started"
        " from, while the next is drawn",
    )
    cache_mb: Annotated[Number, Field(ge=0)] = option(
        4096.0,
        "the most memory, in MiB, that an M-step's samples may take, on the CPU and on its device,"
        " and each set of clean images or samples of an extractor's training or an evaluation: the"
        " rows of a larger one are read from the disk as they are needed, of an M-step one batch"
        " ahead. It changes no number",
    )
    on_divergence: Literal["stop", "lower_rate"] = option(
        "stop",
        "what an M-step does when its loss diverges, that is, when the mean loss of 64 steps or the"
        " loss of validation samples is not finite, or both are more than 10 times the median of"
        " the lap's earlier ones (at first, the loss of validation samples at the start). `stop`"
        " ends the job with the step, the learning rate and the last checkpoint, from which a"
        " change of this key goes on. `lower_rate` goes back to before these steps, and on at half"
        " the rate, five times a lap at most; the prior's card and the loss curve tell it"
        " (`halvings`). It does not touch a lap that is done",
    )
    results: Text = option("results", "the folder for all that is generated")
    estimate_gpu: Text | Positive = option(
        "H100",
        "the GPU that `snakemake estimate` plans for, beside this machine: `V100`, `A100`, `L40S`,"
        " `RTX4090`, `H100`, `H200` or `B200`, which are assumed to sustain a fifth of their"
        " published 16-bit peak (125, 312, 362, 165, 989, 989 and 2250 TFLOP/s); or the sustained"
        " TFLOP/s as a number. That share asks for `precision: bfloat16`. It changes no result",
    )
    experiments: dict[Name, AnyExperiment] = option(
        {},
        "the experiments by name, see below. Two names by which two entries would write the same"
        " table, such as `sky` and `sky_rows`, are refused",
    )
    restoration: dict[Name, Restoration] = option(
        {},
        "comparisons of posterior samplers on image restoration, by name, see the end",
    )
    heuristics: dict[Name, Heuristics] = option(
        {},
        "comparisons of the heuristics for `V` under an exact prior, by name, see the end",
    )
    posterior: dict[Name, Posterior] = option(
        {}, "posterior samples of new observations, by name, see the end"
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _of_the_command_line(cls, value: Any) -> Any:
        # Snakemake hands the numbers of a list on as text, of ``--config "seeds=[0, 1]"``.
        if not isinstance(value, list):
            return value
        return [int(v) if isinstance(v, str) and v.strip().isdecimal() else v for v in value]
