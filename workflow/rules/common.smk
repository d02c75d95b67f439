import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.current_basedir.join("..").get_path_or_uri(secret_free=True)).resolve()
# The library is found where it lies: by the rules here, and by the jobs through their environment.
sys.path.insert(0, str(WORKFLOW))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(WORKFLOW), os.environ.get("PYTHONPATH")])
)

from diem.config import resolve
from diem.errors import DiemError
from diem.folders import check_writable, hold

try:
    CONFIG = resolve(
        config,
        WORKFLOW / "schemas" / "config.schema.yaml",
        source=", ".join(str(file) for file in workflow.configfiles) or "the configuration",
    )
    config.update(CONFIG)  # the scripts' defaults
    RESULTS = CONFIG["results"]
    check_writable(RESULTS)
except DiemError as error:
    raise WorkflowError(str(error)) from None

# Sums are ordered by the number of threads, so it is the config's in every library of every job.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(CONFIG["threads"])

EXPERIMENTS = CONFIG["experiments"]
SEED = CONFIG["seed"]
SHARDS = CONFIG["shards"]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
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


def prior_path(experiment, run, lap):
    """Returns the prior after a lap; lap 0 is the Gaussian prior of the run's observations."""
    if lap == 0:
        observations = EXPERIMENTS[experiment]["runs"][run]["observations"]
        return observations_path(experiment, observations, "gaussian.safetensors")
    return lap_path(experiment, run, lap, "prior.safetensors")


def evaluated_laps(experiment, run):
    laps = EXPERIMENTS[experiment]["runs"][run]["laps"]
    wanted = EXPERIMENTS[experiment]["evaluation"]["laps"]
    return sorted({lap for lap in wanted if lap < laps} | {laps})


def needs_extractor(experiment):
    return "frechet_distance" in EXPERIMENTS[experiment]["evaluation"]["metrics"]


def clean_path(experiment):
    return f"{RESULTS}/{experiment}/clean.h5"


def extractor_path(experiment):
    return f"{RESULTS}/{experiment}/extractor.safetensors"
