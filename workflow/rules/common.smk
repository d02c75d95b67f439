import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.current_basedir.join("..").get_path_or_uri(secret_free=True)).resolve()
SCHEMA = WORKFLOW / "schemas" / "config.schema.yaml"
PUBLISHED = WORKFLOW / "published"
# The library is found where it lies: by the rules here, and by the jobs through their environment.
sys.path.insert(0, str(WORKFLOW))
SEARCH_PATH = os.pathsep.join([str(WORKFLOW), os.environ.get("PYTHONPATH", "")])
# A user's operators and figures are looked for beside the configuration too.
CONFIG_FOLDERS = dict.fromkeys(str(Path(file).resolve().parent) for file in workflow.configfiles)
os.environ["DIEM_PATH"] = os.pathsep.join(CONFIG_FOLDERS)

from diem.config.resolve import ceiling_training, evaluated_laps, resolve, training_of_lap
from diem.data.sets import DATASETS
from diem.errors import DiemError
from diem.evaluation.metrics import find_all
from diem.jobs.results import check_writable, hold, remove_all_pieces

try:
    CONFIG = resolve(
        config,
        SCHEMA,
        source=", ".join(str(file) for file in workflow.configfiles) or "the configuration",
    )
    config.update(CONFIG)  # the scripts' defaults
    RESULTS = CONFIG["results"]
    check_writable(RESULTS)
except DiemError as error:
    raise WorkflowError(str(error)) from None

THREADS = str(CONFIG["threads"])
os.environ.update(
    PYTHONPATH=SEARCH_PATH.rstrip(os.pathsep),
    # Sums are ordered by the number of threads: it is the config's in every library of every job.
    OMP_NUM_THREADS=THREADS,
    MKL_NUM_THREADS=THREADS,
    OPENBLAS_NUM_THREADS=THREADS,
)

EXPERIMENTS = CONFIG["experiments"]
# Experiments on observations that the user brings, of which nothing clean is known.
OWN = [name for name, entry in EXPERIMENTS.items() if entry["data"]["name"] == "hdf5"]
SEED = CONFIG["seed"]
SHARDS = CONFIG["shards"]


wildcard_constraints:
    # No name matches where there is none.
    experiment="|".join(EXPERIMENTS) or "(?!)",
    heuristics="|".join(CONFIG["heuristics"]) or "(?!)",
    observations=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    run=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    lap=r"\d{2,3}",
    stage="floor|ceiling",


onstart:
    try:
        LOCK = hold(RESULTS)
    except DiemError as error:
        raise WorkflowError(str(error)) from None


def experiment_of(wildcards):
    return EXPERIMENTS[wildcards.experiment]


def run_of(wildcards):
    return experiment_of(wildcards)["runs"][wildcards.run]


def setting(*keys):
    """Returns a function of the wildcards that looks up an experiment's setting."""

    def look_up(wildcards):
        value = experiment_of(wildcards)
        for key in keys:
            value = value[key]
        return value

    return look_up


def run_setting(*keys):
    """The same for a run's setting."""

    def look_up(wildcards):
        value = run_of(wildcards)
        for key in keys:
            value = value[key]
        return value

    return look_up


def lap_path(experiment, run, lap, name):
    return f"{RESULTS}/{experiment}/runs/{run}/lap_{lap:02d}/{name}"


def observations_path(experiment, observations, name):
    return f"{RESULTS}/{experiment}/observations/{observations}/{name}"


def shard_paths(experiment, run, lap):
    return [
        lap_path(experiment, run, lap, f"samples_{shard}-of-{SHARDS}.h5")
        for shard in range(1, SHARDS + 1)
    ]


def kept(samples):
    """Marks samples that are removed once nothing needs them, if they are not to be kept."""
    return samples if CONFIG["keep_samples"] else temp(samples)


def prior_path(experiment, run, lap):
    """Returns the prior after a lap; lap 0 is the Gaussian prior of the run's observations."""
    if lap == 0:
        observations = EXPERIMENTS[experiment]["runs"][run]["observations"]
        return observations_path(experiment, observations, "gaussian.safetensors")
    return lap_path(experiment, run, lap, "prior.safetensors")


def wanted_metrics(experiment):
    return EXPERIMENTS[experiment]["evaluation"]["metrics"]


def clean_path(experiment):
    return f"{RESULTS}/{experiment}/clean.h5"


def extractor_path(experiment):
    return f"{RESULTS}/{experiment}/extractor.safetensors"


def download_path(name):
    return f"{RESULTS}/downloads/{name}"


def clean_input(experiment):
    """Returns the clean data to compare with, where there are any."""
    return {} if experiment in OWN else {"clean": clean_path(experiment)}


def clean_data_input(wildcards):
    """Returns what is downloaded because the config gives no path to it."""
    name = DATASETS.parse(experiment_of(wildcards)["data"]).downloads()
    return {} if name is None else {"path": download_path(name)}


def inception_weights_path(experiment):
    given = EXPERIMENTS[experiment]["evaluation"]["inception_weights"]
    return given or download_path("weights-inception-2015-12-05-6726825d.pth")


def inception_reference_path(experiment):
    return f"{RESULTS}/{experiment}/inception_reference.safetensors"


METRIC_INPUTS = {
    "extractor": extractor_path,
    "inception_weights": inception_weights_path,
    "inception_reference": inception_reference_path,
}


def e_step_input(wildcards):
    """The chain's recursion: a lap samples with the prior of the lap before."""
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    entry = run_of(wildcards)
    files = {
        "prior": prior_path(experiment, run, lap - 1),
        "observations": observations_path(experiment, entry["observations"], "observations.h5"),
    }
    if entry["e_step"]["restart"] is not None and lap > 2:
        files["previous"] = shard_paths(experiment, run, lap - 1)
    return files


def m_step_input(wildcards):
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    files = {"samples": shard_paths(experiment, run, lap)}
    if run_of(wildcards)["m_step"]["warm_start"] and lap > 1:
        files["prior"] = prior_path(experiment, run, lap - 1)
    return files


def m_step_entry(wildcards):
    """The settings of one lap's training: its number of steps is resolved here, so that a change
    of the final M-step re-runs only that."""
    run = run_of(wildcards)
    return training_of_lap(run["m_step"], int(wildcards.lap), run["laps"])


def learned_from(experiment, observations):
    """What a prior was learned from, for its card; it also tells the data's units."""
    return {
        "data": experiment["data"],
        "observations": {"name": observations, **experiment["observations"][observations]},
    }


def made_of(wildcards, run):
    """What made a prior beside the settings of its training, for its card."""
    told = learned_from(experiment_of(wildcards), run["observations"])
    return {**told, "e_step": run["e_step"]}


def ceiling_entry(wildcards):
    return ceiling_training(experiment_of(wildcards))


def evaluation_input(wildcards, observations, prior):
    experiment = wildcards.experiment
    files = {
        "prior": prior,
        "observations": observations_path(experiment, observations, "observations.h5"),
        **clean_input(experiment),
    }
    for metric in find_all(wanted_metrics(experiment)):
        files |= {name: METRIC_INPUTS[name](experiment) for name in metric.inputs}
    return files


def evaluate_lap_input(wildcards):
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    observations = run_of(wildcards)["observations"]
    files = evaluation_input(wildcards, observations, prior_path(experiment, run, lap))
    return {**files, "samples": shard_paths(experiment, run, lap)}


def evaluate_bound_input(wildcards):
    """The floor is the fitted Gaussian, the ceiling the prior trained on clean data."""
    experiment, observations = wildcards.experiment, wildcards.observations
    prior = {
        "floor": observations_path(experiment, observations, "gaussian.safetensors"),
        "ceiling": f"{RESULTS}/{experiment}/ceiling/prior.safetensors",
    }[wildcards.stage]
    return evaluation_input(wildcards, observations, prior)


def reconstruction_path(experiment, run, observations, name):
    return f"{RESULTS}/{experiment}/runs/{run}/reconstruction/{observations}/{name}"


def reconstruct_input(wildcards):
    """The last lap's prior, and the Gaussian prior that the run began with."""
    experiment, run = wildcards.experiment, wildcards.run
    last = EXPERIMENTS[experiment]["runs"][run]["laps"]
    return {
        "prior": prior_path(experiment, run, last),
        "gaussian": prior_path(experiment, run, 0),
        "observations": observations_path(experiment, wildcards.observations, "observations.h5"),
        "clean": clean_path(experiment),
    }


def reconstructions(wildcards):
    entry = EXPERIMENTS[wildcards.experiment]
    return [
        reconstruction_path(wildcards.experiment, run, observations, "metrics.csv")
        for observations in entry["evaluation"]["reconstruct"]
        for run in entry["runs"]
    ]


def bounds_of(experiment):
    """A ceiling needs clean data."""
    return ("floor",) if experiment in OWN else ("floor", "ceiling")


def metrics_paths(experiment):
    """Returns the metrics of an experiment: floors, ceilings, and every evaluated lap."""
    entry = EXPERIMENTS[experiment]
    used = dict.fromkeys(run["observations"] for run in entry["runs"].values())
    bounds = [
        observations_path(experiment, observations, f"{stage}/metrics.csv")
        for stage in bounds_of(experiment)
        for observations in used
    ]
    laps = [
        lap_path(experiment, run, lap, "metrics.csv")
        for run in entry["runs"]
        for lap in evaluated_laps(EXPERIMENTS[experiment], run)
    ]
    return bounds + laps


def published_path(experiment):
    return str(PUBLISHED / f"{EXPERIMENTS[experiment]['published']}.csv")


def runs_by_setting(experiment):
    """What tells a run from another in a table of published numbers."""
    entry, told = EXPERIMENTS[experiment], {}
    for name, run in entry["runs"].items():
        operator = entry["observations"][run["observations"]].get("operator", {})
        heuristic = run["e_step"]["covariance"]
        told[name] = {"heuristic": heuristic, "corruption": operator.get("missing")}
    return told


UNSEEN = ("laps", "inception_weights", "reconstruct")


def evaluation_entry(experiment):
    """The evaluation's settings, without the choices of laps and reconstructions and the place of
    a file: none changes a number."""
    entry = EXPERIMENTS[experiment]["evaluation"]
    return {key: entry[key] for key in entry if key not in UNSEEN}
